"""Runs predicted from others: scores, and how much of their error noise does not explain."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.fitting.datasets import Fold
from isoloss.fitting.intervals import Spread, noise_quantiles
from isoloss.fitting.resampling import RUNS_NEEDED, block_length, short_block
from isoloss.fitting.scores import score_pairs
from isoloss.fitting.solver import Solution
from isoloss.fitting.standard_errors import inverse_square
from isoloss.fitting.task import Task

Refit = Callable[[FloatArray, FloatArray], Solution]
"""theta (parameters,), weights (members, points) -> the optimum of each member."""

MOST_FOLDS = 20
"""The most times that runs are predicted from others: the first, and of the rest so many at even distances."""

SIMULATED, FEWEST_SIMULATED = 400, 100
"""Draws of noise that tell which error of prediction it explains; fewer of them where there are many points."""

A_FEW, MOST_TRIED = 6, 4
"""Runs that may already determine a law, and how many such sets are tried."""

NOISE_VALUES = 4_000_000
"""Values of noise that are held at once."""

UNEXPLAINED = 0.95
"""Share of the draws that an error must exceed before it counts as the law's and not as noise."""

UNEXPLAINED_OF_FEW = 0.6
"""The same where too few curves are there to be resampled whole: nothing else shows how one run differs from the
next, and three folds hardly show what a law gets wrong, so that doubt counts against it (decision 1)."""


@dataclass(frozen=True)
class Validation:
    """What prediction from other runs has shown: folds, errors of their runs (log loss), and the spread."""

    folds: tuple[Fold, ...]
    errors: list[list[FloatArray]]
    spread: Spread

    def document(self, task: Task) -> dict[str, Any] | None:
        """Return the score of the first fold, and the means of the others, as plain values."""
        if not self.folds:
            return None
        scored = [self._scores(task, number) for number in range(len(self.folds))]
        first = {"predicted": self.folds[0].what, "score": self.score(0), **scored[0]}
        others = [
            {
                "predicted": fold.what,
                "n_fitted": len(fold.fitted),
                "score": self.score(number),
                "mean": scored[number]["mean"],
            }
            for number, fold in enumerate(self.folds[1:], start=1)
        ]
        return {**first, "others": others}

    def score(self, number: int) -> float:
        """Return the root mean square log error of a fold, each run counting once."""
        return float(np.sqrt(np.mean([np.mean(error**2) for error in self.errors[number]])))

    def _scores(self, task: Task, number: int) -> dict[str, Any]:
        pairs = {}
        for position, error in zip(self.folds[number].predicted, self.errors[number], strict=True):
            observed = task.data.observed[task.data.slices[position]]
            pairs[task.data.run_ids[position]] = (observed, observed * np.exp(error))
        return score_pairs(pairs)


def validate(task: Task, theta: FloatArray, refit: Refit) -> Validation:
    """Predict runs from others, as the dataset says; folds whose runs the law needs are passed over."""
    residuals = task.problem.residuals(theta[None])[0]
    single = noise_quantiles(_errors_like(task, residuals) - task.data.scatter)
    spread = Spread(None, 0, single, run_noise=_run_noise(task, residuals))
    folds = _determined(task, _some(task.data.folds(task.law)))
    if not folds:
        return Validation((), [], spread)
    found = refit(theta, np.stack([_weights(task, fold) for fold in folds]))
    usable = np.flatnonzero(np.isfinite(found.objective))
    folds = [folds[index] for index in usable]
    errors = task.problem.residuals(found.theta[usable])
    parts = [
        [error[task.data.slices[position]] for position in fold.predicted]
        for fold, error in zip(folds, errors, strict=True)
    ]
    finite = [index for index, runs in enumerate(parts) if all(np.all(np.isfinite(run)) for run in runs)]
    folds, parts = [folds[index] for index in finite], [parts[index] for index in finite]
    if len(folds) < task.data.folds_needed:
        return Validation(tuple(folds), parts, spread)
    return Validation(tuple(folds), parts, _discrepancy(task, theta, residuals, folds, parts, spread))


def _errors_like(task: Task, residuals: FloatArray) -> FloatArray:
    """Return residuals as large as errors are: they are smaller by the parameters that were fitted to them."""
    return np.asarray(residuals * np.sqrt(residuals.size / max(1, residuals.size - task.n_varied)))


def _some(folds: list[Fold]) -> list[Fold]:
    return [*folds[:1], *folds[1 :: max(1, -(-len(folds) // MOST_FOLDS))]]


def _determined(task: Task, folds: Sequence[Fold]) -> list[Fold]:
    """Return the folds whose fitted runs determine all that the whole data do.

    More runs never determine less: a few of those that a fold fits, if they do, spare a look at its others. Of few
    runs these are every other one, of which a fold that leaves out one run fits either half.
    """
    some = [group[0] for group in task.data.alike()]
    apart = max(2, len(some) // A_FEW)
    untried = iter([some[begin::apart] for begin in range(min(apart, MOST_TRIED, len(some)))])
    enough: list[Collection[int]] = []

    def determines(fold: Fold) -> bool:
        fitted = set(fold.fitted)
        while not any(fitted.issuperset(few) for few in enough):
            few = next(untried, None)
            if few is None:
                return _determines(task, fold.fitted)
            if _determines(task, few, with_more=True):
                enough.append(few)
        return True

    return [fold for fold in folds if fold.fitted and fold.predicted and determines(fold)]


def _determines(task: Task, positions: Sequence[int], *, with_more: bool = False) -> bool:
    """Return whether these runs, or also these `with_more` of them, determine all that the whole data do."""
    runs = task.data.only(positions)
    if runs.distinct() <= task.n_varied:
        return False
    features, known = runs.prepare(task.law), set(task.missing) | set(task.held)
    if with_more and not set(task.law.held(features, task.options.fix)) <= known:
        return False  # what does not enter for these may enter for more, and be undetermined then
    return set(task.law.undetermined(features, task.options.fix)) <= known


def _weights(task: Task, fold: Fold) -> FloatArray:
    fitted = np.zeros(task.data.n_runs)
    fitted[list(fold.fitted)] = 1.0
    return np.repeat(fitted, task.data.lengths)


def _discrepancy(
    task: Task,
    theta: FloatArray,
    residuals: FloatArray,
    folds: Sequence[Fold],
    errors: list[list[FloatArray]],
    spread: Spread,
) -> Spread:
    """Return the spread with the largest error of a fold that noise leaves unexplained."""
    together = [_together(task, residuals, fold) for fold in folds]
    each = np.array(
        [
            fold_error(
                [np.concatenate([runs[index] for index in curve])[None] for curve, _ in curves], curves
            )[0]
            for runs, curves in zip(errors, together, strict=True)
        ]
    )
    noise = _noise_errors(task, theta, residuals, folds, together)
    alone = np.sqrt(np.mean(noise**2, axis=0))
    few = max(task.data.lengths) > 1 and task.data.n_runs < RUNS_NEEDED
    with np.errstate(invalid="ignore", divide="ignore"):
        usual = np.nanmax(noise / alone, axis=1, initial=0.0)
        times = float(np.quantile(usual, UNEXPLAINED_OF_FEW if few else UNEXPLAINED))
    beyond = np.sqrt(np.maximum(each**2 - alone**2, 0.0))
    worst = int(np.argmax(beyond))
    return Spread(
        discrepancy=float(beyond[worst]) if np.any(each > times * alone) else 0.0,
        folds=len(folds),
        noise=spread.noise,
        error=float(each[worst]),
        explained=times * float(alone[worst]),
        worst=folds[worst].what,
        run_noise=spread.run_noise,
    )


Curves = list[tuple[list[int], int]]
"""Predicted runs of a fold that stand one after another, by their places in it, and the length of blocks."""


def _together(task: Task, residuals: FloatArray, fold: Fold) -> Curves:
    """Return how a fold's errors are averaged: each curve in its blocks, a table's rows by scale in two halves."""
    if max(task.data.lengths) == 1:
        return [(list(range(len(fold.predicted))), -(-len(fold.predicted) // 2))]
    return [
        ([place], block_length(residuals[task.data.slices[position]]))
        for place, position in enumerate(fold.predicted)
    ]


def fold_error(errors: Sequence[FloatArray], curves: Curves) -> FloatArray:
    """Return how far off, in log loss, runs are predicted: (draws,) from errors (draws, points) of each curve.

    Averaging over blocks of neighbouring points removes the noise of single points and keeps what the law
    gets wrong. It errs most where the learning rate has fallen, at the end, which is also what is asked for: the
    larger counts of whole curves and last blocks, root mean square over the runs.
    """
    means = [_block_means(error, block) for error, (_, block) in zip(errors, curves, strict=True)]
    whole = np.mean([np.mean(mean**2, axis=1) for mean in means], axis=0)
    last = np.mean([mean[:, -1] ** 2 for mean in means], axis=0)
    return np.asarray(np.sqrt(np.maximum(whole, last)))


def _block_means(values: FloatArray, block: int) -> FloatArray:
    edges = np.arange(0, values.shape[1], block)
    return np.asarray(np.add.reduceat(values, edges, axis=1) / np.diff(np.append(edges, values.shape[1])))


def _noise_errors(
    task: Task, theta: FloatArray, residuals: FloatArray, folds: Sequence[Fold], together: Sequence[Curves]
) -> FloatArray:
    """Return the errors that noise alone gives each fold, (draws, folds), if the law were true.

    Noise is the residuals with random signs on short blocks: what is smoother than those is not noise but
    misfit. It moves the parameters by one step of the M-estimator's linear response, and so do priors whose centres
    lie beside the truth.
    """
    moves = task.directions(theta)
    jacobian = task.problem.relative_jacobian(theta[None])[0] @ moves
    drawn = np.sqrt(task.problem.prior[1])[:, None] * moves
    scaled = _errors_like(task, residuals)
    responses = [_response(task, residuals, jacobian, drawn, fold) for fold in folds]
    random = np.random.default_rng(task.options.seed)
    batch = max(1, NOISE_VALUES // residuals.size)
    draws = int(np.clip(batch, FEWEST_SIMULATED, SIMULATED))
    found = []
    for begin in range(0, draws, batch):
        noise = scaled * _signs(task.data.lengths, min(batch, draws - begin), random)
        push = np.clip(noise, -task.problem.delta, task.problem.delta) @ jacobian
        push += task.problem.priors.strength * random.standard_normal((len(push), theta.size)) @ drawn
        columns = [
            _noise_error(task, noise, push, jacobian, fold, response, curves)
            for fold, response, curves in zip(folds, responses, together, strict=True)
        ]
        found.append(np.stack(columns, axis=1))
    return np.concatenate(found)


def _response(
    task: Task, residuals: FloatArray, jacobian: FloatArray, drawn: FloatArray, fold: Fold
) -> FloatArray:
    """Return by how much the parameters move with the score of the fitted runs: the inverse curvature.

    `drawn` (parameters, varied) are the rows of the priors, which count like observations.
    """
    known = jacobian[_weights(task, fold).astype(bool)]
    # The points that the fit interpolates count too: doubt that comes too easily is the smaller error (decision 1).
    inside = float((np.abs(residuals) <= task.problem.delta).mean())
    return inverse_square(np.concatenate([np.sqrt(inside) * known, drawn]))


def _noise_error(
    task: Task,
    noise: FloatArray,
    push: FloatArray,
    jacobian: FloatArray,
    fold: Fold,
    response: FloatArray,
    curves: Curves,
) -> FloatArray:
    """Return the fold's error for each draw of noise (draws, points), of which `push` is the score of all runs."""
    fitted = set(fold.fitted)
    for position, run in enumerate(task.data.slices):
        if position not in fitted:
            push = push - np.clip(noise[:, run], -task.problem.delta, task.problem.delta) @ jacobian[run]
    moved = push @ response
    runs = [task.data.slices[position] for position in fold.predicted]
    errors = [moved @ jacobian[run].T - noise[:, run] for run in runs]
    return fold_error(
        [np.concatenate([errors[index] for index in curve], axis=1) for curve, _ in curves], curves
    )


def _signs(lengths: Sequence[int], draws: int, random: np.random.Generator) -> FloatArray:
    """Return random signs (draws, points) that are the same within short blocks of a run."""
    columns = []
    for length in lengths:
        block = short_block(length)
        drawn = random.choice([-1.0, 1.0], size=(draws, -(-length // block)))
        columns.append(np.repeat(drawn, block, axis=1)[:, :length])
    return np.concatenate(columns, axis=1)


def _run_noise(task: Task, residuals: FloatArray) -> float | None:
    """Return the standard deviation of log loss between runs of one configuration, None where none has two."""
    offsets = [
        [residuals[task.data.slices[position]].mean() for position in group] for group in task.data.alike()
    ]
    several = [np.array(group) for group in offsets if len(group) > 1]
    if not several:
        return None
    squares = sum(float(np.sum((group - group.mean()) ** 2)) for group in several)
    return float(np.sqrt(squares / sum(len(group) - 1 for group in several)))
