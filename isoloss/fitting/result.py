"""What a fit says: parameters with intervals, scores, a verdict with reasons, and where it all came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from isoloss.arrays import FloatArray, IntArray
from isoloss.errors import InvalidInput, Unidentified
from isoloss.fitting.intervals import Spread, averaged, interval_around, widened
from isoloss.fitting.objective import stretch
from isoloss.fitting.ranges import FittedRange, Question, range_from_dict
from isoloss.fitting.summary import summary
from isoloss.laws import LAWS, Features, Law, StagedLaw
from isoloss.notes import counted
from isoloss.observations.counts import fits_float, mapping_of
from isoloss.schedules import Schedule

Verdict = Literal["sound", "weak", "unidentified"]
IntervalKind = Literal["mean", "new_run"]

RESAMPLES_BEYOND = 2
"""Resamples that must lie outside of an interval, or its ends are those of the few that were drawn."""

ROUNDED = 1e-9

CHUNK_VALUES = 4_000_000
"""Resamples times terms that are predicted at once; bounds the memory of a prediction."""


MOST_NAMED = 8
"""Curves or recipes that an error names."""

SMALLEST = float(np.finfo(np.float64).tiny)
"""What an absolute law that predicts 0 is read as: predictions go by their logarithms."""

LARGEST = float(np.log(np.finfo(np.float64).max))
"""The largest logarithm of a number: an interval without an upper end has its end here."""


@dataclass(frozen=True)
class ParameterEstimate:
    """One parameter's value with its standard error and interval; all None where the data do not say.

    `interval` comes from resamples, `profile` from the profile likelihood, with None for a side without limit.
    """

    name: str
    symbol: str
    unit: str
    value: float | None
    std_error: float | None
    interval: tuple[float, float] | None
    at_bound: bool
    profile: tuple[float | None, float | None] | None = None


@dataclass(frozen=True)
class Derived:
    """A quantity that follows from the parameters."""

    name: str
    unit: str
    value: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Prediction:
    """Predictions `value`, `lower`, `upper`, and how far they reach beyond the data.

    Of a curve at its `steps`; of a table's law (None) for each of the runs that were asked for.
    """

    quantity: str
    unit: str
    steps: IntArray | None
    value: FloatArray
    lower: FloatArray
    upper: FloatArray
    level: float
    interval: IntervalKind
    extrapolation: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the prediction as plain JSON values."""
        columns = ("value", "lower", "upper")
        steps = None if self.steps is None else self.steps.tolist()
        return {**asdict(self), "steps": steps, **{name: getattr(self, name).tolist() for name in columns}}


@dataclass(frozen=True, repr=False)
class Fit:
    """The outcome of a fit. `public` is what the API shows; the rest is what predictions are made from.

    `theta` (parameters,) the optimum and `samples` (resamples, parameters) its resamples, in the law's order;
    `inflation` by how much few resampled units make their spread too narrow, `covariances` (parameters, parameters)
    what of it comes from noise and what from priors, where there are some; `spread` what resampling cannot
    show; `fitted_range` where the data lay. `selection` says how the law was chosen, where it was; `equals` are
    fits of other laws, with their weights, that predict as well: then a prediction is their average. `curvature`
    (1 + resamples, axes, axes) are a sweep's second derivatives of log loss by log settings at its best. `parts`
    are the fits of curves or recipes by their names, each with parameters of its own: predictions are theirs.
    """

    law_name: str
    parameters: dict[str, ParameterEstimate]
    objective: float
    metrics: dict[str, Any]
    holdout: dict[str, Any] | None
    groups: list[dict[str, Any]]
    derived: list[Derived]
    diagnostics: dict[str, Any]
    left_out: list[dict[str, str]]
    verdict: Verdict
    reasons: list[str]
    provenance: dict[str, Any]
    theta: FloatArray
    samples: FloatArray
    inflation: float
    spread: Spread
    fitted_range: FittedRange
    covariances: tuple[FloatArray, FloatArray] | None = None
    missing: dict[str, str] = field(default_factory=dict)
    selection: dict[str, Any] | None = None
    equals: tuple[tuple[float, Fit], ...] = ()
    curvature: FloatArray | None = None
    parts: Mapping[str, Fit] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Show what the fit says in a few lines; a notebook has no use for thousands of resamples."""
        return summary(self)

    @property
    def law(self) -> Law[Any]:
        chosen = self.provenance.get("convention") or self.provenance["options"].get("convention")
        return LAWS[self.law_name].under(chosen)

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def predict(
        self,
        *,
        schedule: Schedule | Mapping[str, Any] | None = None,
        steps: Sequence[int] | IntArray | None = None,
        config: Mapping[str, Any] | None = None,
        n_params: npt.ArrayLike | None = None,
        n_tokens: npt.ArrayLike | None = None,
        level: float | None = None,
        interval: IntervalKind = "mean",
    ) -> Prediction:
        """Return what a run would show, with an interval of `level`.

        For a law of curves: the loss under `schedule` at `steps`, without them at some from the end of warm-up to
        the end. For a law of tables: the outcome of runs with these columns, `n_params`, `n_tokens` or any in
        `config`. `interval` 'mean' is for the law's own value, 'new_run' for one more run. Raises Unidentified
        where the data did not determine the law, or a term of it, and InvalidInput for a question that the law
        does not answer, steps inside the warm-up among them, unless the fit was made with `skip_steps`. Where every
        curve or recipe has parameters of its own, `config` names it.
        """
        if self.is_of_parts:
            columns = {"n_params": n_params, "n_tokens": n_tokens, "schedule": schedule, "steps": steps}
            return self._predict_part(config, columns, level=level, interval=interval)
        self._require_identified()
        level = self._checked_level(level, interval)
        asked = {
            "schedule": schedule,
            "steps": steps,
            "config": _checked_config(config),
            "n_params": n_params,
            "n_tokens": n_tokens,
        }
        for name in ("n_params", "n_tokens"):
            _check_sizes(asked[name], name)
        question = self.ask(asked)
        centre, below, above = self.log_interval(question, level, new_run=interval == "new_run")
        if not np.all(np.isfinite(centre)):
            raise Unidentified(reason="the law has no positive loss at some of these steps")
        return Prediction(
            quantity=self.law.quantity,
            unit=self.law.unit,
            steps=question.steps,
            value=np.exp(centre),
            lower=np.exp(below),
            upper=np.exp(np.minimum(above, LARGEST)),
            level=level,
            interval=interval,
            extrapolation=self._extrapolation(question, level),
        )

    @property
    def is_of_parts(self) -> bool:
        """Return whether every curve or recipe has parameters of its own, in `parts`."""
        return bool(self.groups) and isinstance(self.law, StagedLaw) and self.law.label is not None

    def part(self, name: object) -> Fit:
        """Return the fit of a curve or recipe, of the only one where None is named.

        Raises InvalidInput for a name that there is not, Unidentified for one that no law was fitted to.
        """
        assert isinstance(self.law, StagedLaw)
        label, known = self.law.label, [group["by"][self.law.label] for group in self.groups]
        if name is None and len(known) == 1:
            name = known[0]
        if isinstance(name, int | float) and not isinstance(
            name, bool
        ):  # numbers name parts too, as in tables
            name = f"{name:.12g}"
        if not isinstance(name, str) or name not in known:
            which = f"each {label} has parameters of its own" if name is None else f"{name!r} was not fitted"
            reason = f"{which}; name one of {', '.join(known[:MOST_NAMED])}"
            raise InvalidInput(field=f"config.{label}", reason=reason)
        if name not in self.parts:
            group = self.groups[known.index(name)]
            raise Unidentified(reason=f"{label} {name!r}: {'; '.join(group['reasons'])}")
        return self.parts[name]

    def _predict_part(
        self,
        config: Mapping[str, Any] | None,
        columns: Mapping[str, Any],
        *,
        level: float | None,
        interval: IntervalKind,
    ) -> Prediction:
        """Return what the curve or recipe that `config` names would show; of rivals, also how likely each leads."""
        assert isinstance(self.law, StagedLaw)
        own = dict(_checked_config(config) or {})
        part = self.part(own.pop(self.law.label or "", None))
        told = part.predict(config=own, **columns, level=level, interval=interval)
        if not self.law.compares:
            return told
        leads = lead(
            {name: one.drawn({**columns, "config": own}, number) for number, (name, one) in self._rivals()}
        )
        return replace(told, extrapolation={**told.extrapolation, "leads": leads})

    def _rivals(self) -> Iterator[tuple[int, tuple[str, Fit]]]:
        """Yield the parts that can be predicted, numbered."""
        usable = ((name, one) for name, one in self.parts.items() if one.verdict != "unidentified")
        return enumerate(usable)

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def drawn(self, asked: Mapping[str, Any], number: int) -> FloatArray:
        """Return log predictions (1 + resamples, points) of a table's law, the estimate first.

        Resamples are as wide as the interval for the mean: they are spread for few runs, and each has the
        discrepancy by chance. Their order is drawn by `number`, so that fits with one seed do not move together.
        """
        question = self.ask(asked)
        features = question.features(self.law, slice(0, question.n_points))
        random = np.random.default_rng([self.provenance["seed"], number, 23])
        centre = np.log(self.law.predict(self.theta[None], features))
        moves = self._inflation_at(features) * (np.log(self._members(features)) - centre)
        off = random.standard_normal((len(moves), 1)) * (self.spread.discrepancy or 0.0) * question.reach()
        return np.concatenate([centre, centre + random.permutation(moves) + off])

    def ask(self, asked: Mapping[str, Any]) -> Question:
        """Return the question that `schedule`, `steps`, `config` and columns mean; raises as `predict` does."""
        return self.fitted_range.ask(self.law, asked, self.missing)

    def log_interval(
        self, question: Question, level: float, *, new_run: bool
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the log prediction and the ends of its interval, each (points,); NaN where it has no logarithm."""
        own = self._own_interval(question, level, new_run=new_run)
        if not self.equals:
            return own
        others = [
            (weight, fit._own_interval(question.again(fit.ask), level, new_run=new_run))
            for weight, fit in self.equals
        ]
        return averaged([(1 - sum(weight for weight, _ in others), own), *others])

    def log_members(self, asked: Mapping[str, Any]) -> tuple[FloatArray, FloatArray]:
        """Return the log prediction (n,) and resamples of it (resamples, n) that hold all that an interval holds.

        Chains of laws go on from them: resample by resample they belong to those of other fits of the same runs.
        `asked` as for `ask`, and raises as `predict` does.
        """
        self._require_identified()
        question = self.ask(asked)
        features = question.features(self.law, slice(0, question.n_points))
        with np.errstate(divide="ignore", invalid="ignore"):
            centre = np.log(self.law.predict(self.theta[None], features)[0])
            members = np.log(self._members(features))
        beyond = np.hypot((self.spread.discrepancy or 0.0) * question.reach(), question.unlike())
        chance = np.random.default_rng([self.provenance["seed"], *self.law_name.encode()])
        drawn = chance.standard_normal((len(members), 1))
        spread = np.where(np.isfinite(members), members - centre, 0.0) * self._inflation_at(features)
        return question.in_order(centre), question.in_order((centre + spread + drawn * beyond).T).T

    def _own_interval(
        self, question: Question, level: float, *, new_run: bool
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        reach, unlike = question.reach(), question.unlike()
        n_chunks = max(1, -(-question.n_points * (len(self.samples) + 1) // CHUNK_VALUES))
        parts = []
        for part in np.array_split(np.arange(question.n_points), n_chunks):
            within = slice(int(part[0]), int(part[-1]) + 1)
            ends = self._log_interval(question, within, reach[within], unlike[within], level, new_run=new_run)
            parts.append(ends)
        centre, below, above = (np.concatenate(column) for column in zip(*parts, strict=True))
        self._refuse_below(question.least(self.law, self.theta), centre)
        return question.in_order(centre), question.in_order(below), question.in_order(above)

    def _refuse_below(self, least: FloatArray, centre: FloatArray) -> None:
        if np.any(centre < least):
            reason = (
                f"{self.law_name} does not carry over between peak learning rates, and falls below its own "
                "floor at this one; fit runs of it"
            )
            raise Unidentified(reason=reason)

    def _log_interval(
        self,
        question: Question,
        part: slice,
        reach: FloatArray,
        unlike: FloatArray,
        level: float,
        *,
        new_run: bool,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        features = question.features(self.law, part)
        centre = self.law.predict(self.theta[None], features)[0]
        members = self._members(features)
        if not self.law.absolute:
            with np.errstate(divide="ignore", invalid="ignore"):
                centre, members = np.log(centre), np.log(members)
        ends = interval_around(
            centre,
            members,
            self.spread,
            reach,
            level,
            unlike=unlike,
            inflation=self._inflation_at(features),
            new_run=new_run,
        )
        if not self.law.absolute:
            return centre, *ends
        with np.errstate(divide="ignore"):
            below, above = (np.log(np.clip(end, *self.law.outcomes)) for end in ends)
        return np.log(np.maximum(centre, SMALLEST)), below, above

    def _inflation_at(self, features: Features) -> FloatArray:
        """Return by how much the spread of resamples is too narrow at each point, (points,).

        Few units are too few for the noise; how uncertain a prior's centre is does not hang on them.
        """
        if self.covariances is None:
            return np.full(features.n_points, self.inflation)
        predicted, jacobian = self.law.jacobian(self.theta[None], features)
        slopes = zip(self.law.parameters, self.theta, strict=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            gradient = jacobian[0] / predicted[0][:, None] * [stretch(one, at) for one, at in slopes]
            by_noise, by_prior = (
                np.einsum("np,pq,nq->n", gradient, one, gradient) for one in self.covariances
            )
            share = by_prior / (by_noise + by_prior)
        return widened(self.inflation, np.where(np.isfinite(share), share, 0.0))

    def _members(self, features: Features) -> FloatArray:
        """Return the resamples' predictions, (resamples, points)."""
        size = max(1, CHUNK_VALUES // features.n_terms)
        parts = [
            self.law.predict(self.samples[begin : begin + size], features)
            for begin in range(0, len(self.samples), size)
        ]
        return np.concatenate(parts) if parts else np.empty((0, features.n_points))

    def _extrapolation(self, question: Question, level: float) -> dict[str, Any]:
        """Return how far the question reaches, and what the interval lacks."""
        said = question.describe()
        others = self.fitted_range.predicted_from_others
        lacking = _missing_parts(self.spread, others, len(self.samples), level)
        not_read = question.not_read([self.law, *(equal.law for _, equal in self.equals)])
        ignored = (
            [f"{self.law_name} does not read {' and '.join(not_read)}: without effect"] if not_read else []
        )
        told = {**said, "warnings": [*said["warnings"], *ignored, *lacking]}
        return told | ({"not_read": not_read} if not_read else {})

    def _require_identified(self) -> None:
        if self.verdict == "unidentified":
            raise Unidentified(reason="; ".join(self.reasons))
        if not len(self.samples) and self.spread.discrepancy is None:
            reason = "no resamples were drawn and no schedule left out: a prediction would have no interval"
            raise Unidentified(reason=reason)

    def _checked_level(self, level: float | None, interval: str) -> float:
        level = float(self.provenance["options"]["level"]) if level is None else level
        if not fits_float(level) or not 0 < level < 1:
            raise InvalidInput(field="level", reason="must lie between 0 and 1")
        if not isinstance(interval, str) or interval not in ("mean", "new_run"):
            raise InvalidInput(field="interval", reason="must be 'mean' or 'new_run'")
        return level

    def public(self) -> dict[str, Any]:
        """Return what the API shows of the fit, as plain JSON values: numbers that are not finite are null."""
        shown = {
            "law": self.law_name,
            "parameters": [asdict(one) for one in self.parameters.values()],
            "objective": self.objective,
            "metrics": self.metrics,
            "holdout": self.holdout,
            "groups": self.groups,
            "derived": [asdict(one) for one in self.derived],
            "diagnostics": self.diagnostics,
            "left_out": self.left_out,
            "verdict": self.verdict,
            "reasons": self.reasons,
            "provenance": self.provenance,
            "selection": self.selection,
        }
        return {name: _finite(value) for name, value in shown.items()}

    def as_document(self) -> dict[str, Any]:
        """Return the whole fit as plain JSON values; `from_document` reads it back without loss."""
        private = {
            "theta": self.theta.tolist(),
            "samples": self.samples.tolist(),
            "spread": self.spread.as_dict(),
            "inflation": self.inflation,
            "covariances": None if self.covariances is None else [one.tolist() for one in self.covariances],
            "fitted_range": self.fitted_range.as_dict(),
            "missing": self.missing,
            "curvature": None if self.curvature is None else self.curvature.tolist(),
            "parts": {name: fit.as_document() for name, fit in self.parts.items()},
            "equals": [[weight, fit.as_document()] for weight, fit in self.equals],
        }
        return {**self.public(), "private": private}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Fit:
        """Return the fit that `as_document` described; raises InvalidInput for a document that it did not make."""
        try:
            return cls._from_document(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"is none that Fit.as_document made ({type(error).__name__}: {error})"
            raise InvalidInput(field="document", reason=reason) from error

    @classmethod
    def _from_document(cls, document: Mapping[str, Any]) -> Fit:
        private = document["private"]
        shown = {name: document[name] for name in _SHOWN}
        return cls(
            law_name=document["law"],
            parameters={one["name"]: ParameterEstimate(**_paired(one)) for one in document["parameters"]},
            derived=[Derived(**_paired(one)) for one in document["derived"]],
            theta=np.array(private["theta"]),
            samples=np.array(private["samples"]).reshape(-1, len(private["theta"])),
            inflation=private.get("inflation", 1.0),
            covariances=_arrays(private.get("covariances")),
            spread=Spread.from_dict(private["spread"]),
            fitted_range=range_from_dict(private["fitted_range"]),
            missing=private["missing"],
            curvature=None if private.get("curvature") is None else np.array(private["curvature"]),
            selection=document.get("selection"),
            equals=tuple((weight, cls._from_document(one)) for weight, one in private.get("equals", ())),
            parts={name: cls._from_document(one) for name, one in private.get("parts", {}).items()},
            **shown,
        )


def _arrays(covariances: Any) -> tuple[FloatArray, FloatArray] | None:
    return None if covariances is None else (np.array(covariances[0]), np.array(covariances[1]))


_SHOWN = (
    "objective", "metrics", "holdout", "groups", "diagnostics", "left_out", "verdict", "reasons", "provenance",
)  # fmt: skip


def lead(drawn: Mapping[str, FloatArray]) -> dict[str, list[float]]:
    """Return how likely each of several has the lowest of all losses: their shares of resamples, for every point.

    `drawn` (1 + resamples, points) each, as `Fit.drawn`; no shares where there are no resamples, or no rivals.
    """
    fewest = min((len(one) for one in drawn.values()), default=0)
    if fewest < 2 or len(drawn) < 2:
        return {}
    losses = np.stack([one[1:fewest] for one in drawn.values()])
    least = np.argmin(np.where(np.isnan(losses), np.inf, losses), axis=0)
    return {name: np.mean(least == place, axis=0).tolist() for place, name in enumerate(drawn)}


def _checked_config(config: object) -> Mapping[str, Any] | None:
    """Return a configuration whose values can be looked at; raises InvalidInput."""
    for name, value in mapping_of(config, "config").items():
        _check_sizes(value, f"config.{name}")
        if name.endswith("_kind") and value is not None and not isinstance(value, str):
            raise InvalidInput(field=f"config.{name}", reason="must be a name")
    return mapping_of(config, "config") or None


def _check_sizes(value: object, field: str) -> None:
    """Refuse whole numbers, alone or in a list, that no float can hold: NumPy fails on them."""
    for one in value if isinstance(value, list | tuple) else (value,):
        if isinstance(one, int) and not isinstance(one, bool) and not fits_float(one):
            raise InvalidInput(field=field, reason="is too large a number")


def _finite(value: Any) -> Any:
    """Return plain values with None for every number that JSON does not know."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return type(value)(map(_finite, value)) if isinstance(value, list | tuple) else value


def _paired(estimate: Mapping[str, Any]) -> dict[str, Any]:
    pairs = {name: estimate.get(name) for name in ("interval", "profile") if name in estimate}
    return {**estimate, **{name: None if pair is None else tuple(pair) for name, pair in pairs.items()}}


def too_few_resamples(resamples: int, level: float) -> str:
    verb = "is" if resamples == 1 else "are"
    return f"{counted(resamples, 'resample')} {verb} too few for an interval of level {level:g}"


def _missing_parts(spread: Spread, others: str, resamples: int, level: float) -> Iterator[str]:
    """Say what an interval lacks."""
    if spread.discrepancy is None:
        yield f"too few {others}: the error on another one was not measured and is not in the interval"
    if not resamples:
        yield "no resamples were drawn: how noise moves the law is not in the interval"
    elif resamples * (1 - level) < RESAMPLES_BEYOND * (1 - ROUNDED):
        yield f"{too_few_resamples(resamples, level)}: it may be too narrow"
