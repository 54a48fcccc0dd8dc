"""The surface of loss over the settings of a sweep, with its minimum where a law says.

In every sweep c, log loss = offset_c + P(u), u = log setting - log optimum_c, with one polynomial P that has
neither a constant nor a slope, and log optimum_c linear in the logarithms of what the runs of c are. So the sweeps
lend each other their shape, and one with few runs still says where its own minimum lies.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, IntArray
from isoloss.fitting.solver import COARSE, FINE, Solution, solve
from isoloss.laws.power_product import STEEPEST

AS_GOOD_AS_NONE = 1e-9
"""What is smaller, as a share, is rounding."""

LEAST_SPARE = 0.5
"""Of fewer spare runs than this many no quantile is known."""

FLATTEST = 1e-6
"""The least curvature, in log loss by the square of a log setting, of a surface that has a minimum."""


@dataclass(frozen=True)
class Sweeps:
    """Runs of several sweeps: `cell` (runs,) which one, `settings` (axes, runs) and `log_loss` (runs,) in logs.

    `traits` has for every axis what its optimum is linear in, (traits, cells) with a first row of ones; `weights`
    (runs,) are larger for runs near the best of their sweep.
    """

    cell: IntArray
    settings: FloatArray
    log_loss: FloatArray
    weights: FloatArray
    traits: tuple[FloatArray, ...]

    @property
    def n_cells(self) -> int:
        return int(self.traits[0].shape[1])

    def only(self, cells: Sequence[int] | IntArray) -> Sweeps:
        """Return these sweeps alone."""
        chosen = np.asarray(cells, dtype=np.int64)
        runs = np.isin(self.cell, chosen)
        return Sweeps(
            np.searchsorted(chosen, self.cell[runs]),
            self.settings[:, runs],
            self.log_loss[runs],
            self.weights[runs],
            tuple(one[:, chosen] for one in self.traits),
        )


@dataclass(frozen=True)
class Surface:
    """The model of `Sweeps`: its parameters are the slopes of each axis, the coefficients of P, the offsets."""

    sweeps: Sweeps
    degree: int

    @cached_property
    def monomials(self) -> list[tuple[int, ...]]:
        """The factors of each term of P, as axes: (0, 0, 1) is u_0^2 u_1."""
        axes = range(len(self.sweeps.settings))
        return [
            one for degree in range(2, self.degree + 1) for one in combinations_with_replacement(axes, degree)
        ]

    @cached_property
    def n_traits(self) -> list[int]:
        return [len(one) for one in self.sweeps.traits]

    @property
    def n_slopes(self) -> int:
        return sum(self.n_traits)

    @property
    def n_shape(self) -> int:
        return len(self.monomials)

    def slopes(self, theta: FloatArray) -> list[FloatArray]:
        """Return the slopes of each axis, (members, traits)."""
        return np.split(theta[:, : self.n_slopes], np.cumsum(self.n_traits)[:-1], axis=1)

    def shape(self, theta: FloatArray) -> FloatArray:
        return theta[:, self.n_slopes : self.n_slopes + self.n_shape]

    def optima(self, theta: FloatArray) -> FloatArray:
        """Return the log optimum of every sweep, (members, axes, cells)."""
        return np.stack(
            [one @ traits for one, traits in zip(self.slopes(theta), self.sweeps.traits, strict=True)], axis=1
        )

    def hessian(self, theta: FloatArray) -> FloatArray:
        """Return the second derivatives of P at the minimum, (members, axes, axes)."""
        n_axes = len(self.sweeps.settings)
        out = np.zeros((len(theta), n_axes, n_axes))
        for term, value in zip(self.monomials, self.shape(theta).T, strict=True):
            if len(term) == 2:
                out[:, term[0], term[1]] += value
                out[:, term[1], term[0]] += value
        return out

    def has_minimum(self, theta: FloatArray) -> BoolArray:
        """Return of which members (members,) the surface rises in every direction."""
        finite = np.all(np.isfinite(theta), axis=1)
        hessian = np.where(finite[:, None, None], self.hessian(theta), -1.0)
        return np.asarray(finite & (np.linalg.eigvalsh(hessian)[:, 0] > 2 * FLATTEST))

    def excess(self, theta: FloatArray, away: FloatArray) -> FloatArray:
        """Return P, the log loss above the minimum, at so many logs `away` from it: (axes, n) -> (members, n)."""
        away = np.broadcast_to(away, (len(theta), *away.shape))
        return np.einsum("mk,mnk->mn", self.shape(theta), self._terms(away))

    def model(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return residuals (members, runs) and their derivatives (members, runs, parameters)."""
        cell = self.sweeps.cell
        u = self.sweeps.settings[None] - self.optima(theta)[:, :, cell]
        terms, shape = self._terms(u), self.shape(theta)
        offsets = theta[:, self.n_slopes + self.n_shape :]
        residuals = np.einsum("mk,mnk->mn", shape, terms) + offsets[:, cell] - self.sweeps.log_loss
        slopes = self._gradient(u, shape)
        jacobian = np.zeros((*residuals.shape, theta.shape[1]))
        at = 0
        for axis, traits in enumerate(self.sweeps.traits):
            jacobian[:, :, at : at + len(traits)] = -slopes[:, axis, :, None] * traits.T[cell]
            at += len(traits)
        jacobian[:, :, at : at + self.n_shape] = terms
        jacobian[:, np.arange(cell.size), at + self.n_shape + cell] = 1.0
        return residuals, jacobian

    def _terms(self, u: FloatArray) -> FloatArray:
        """Return the monomials at u (members, axes, n): (members, n, terms)."""
        return np.stack([np.prod(u[:, list(term)], axis=1) for term in self.monomials], axis=-1)

    def _gradient(self, u: FloatArray, shape: FloatArray) -> FloatArray:
        """Return the derivatives of P by u, (members, axes, n)."""
        out = np.zeros_like(u)
        for number, term in enumerate(self.monomials):
            for axis in set(term):
                others = list(term)
                others.remove(axis)
                out[:, axis] += shape[:, number, None] * term.count(axis) * np.prod(u[:, others], axis=1)
        return out

    def start(self, held: dict[int, float]) -> FloatArray:
        """Return where a search begins, (parameters,): optima at the mean of the settings, P as it fits."""
        sweeps, root = self.sweeps, np.sqrt(self.sweeps.weights)
        theta = np.zeros((1, self.n_slopes + self.n_shape + sweeps.n_cells))
        at = 0
        for traits, setting in zip(sweeps.traits, sweeps.settings, strict=True):
            given = np.array([held.get(at + number, np.nan) for number in range(len(traits))])
            free = np.isnan(given)
            rest = setting - np.where(free, 0.0, given) @ traits[:, sweeps.cell]
            design = (traits[free][:, sweeps.cell] * root).T
            slopes = np.where(free, 0.0, given)
            slopes[free] = np.linalg.lstsq(design, rest * root, rcond=None)[0]
            theta[0, at : at + len(traits)] = slopes
            at += len(traits)
        design = self.model(theta)[1][0][:, self.n_slopes :]
        found = np.linalg.lstsq(design * root[:, None], sweeps.log_loss * root, rcond=None)[0]
        theta[0, self.n_slopes :] = found
        squares = [
            self.n_slopes + n
            for n, term in enumerate(self.monomials)
            if len(set(term)) == 1 and len(term) == 2
        ]
        theta[0, squares] = np.maximum(theta[0, squares], 10 * FLATTEST)
        return np.asarray(theta[0])

    def limits(self, held: dict[int, float]) -> tuple[FloatArray, FloatArray]:
        """Return the bounds (parameters,) of the search; `held` slopes by their position stay where they are."""
        count = self.n_slopes + self.n_shape + self.sweeps.n_cells
        lower, upper = np.full(count, -np.inf), np.full(count, np.inf)
        for number, term in enumerate(self.monomials):
            if len(term) == 2 and len(set(term)) == 1:
                lower[self.n_slopes + number] = FLATTEST
        at = 0
        for count_of_axis in self.n_traits:  # all but the first, which is the level, are exponents
            lower[at + 1 : at + count_of_axis], upper[at + 1 : at + count_of_axis] = -STEEPEST, STEEPEST
            at += count_of_axis
        for position, value in held.items():
            lower[position] = upper[position] = value
        return lower, upper

    def solve(
        self, theta: FloatArray, weights: FloatArray, held: dict[int, float], *, exact: bool = True
    ) -> Solution:
        """Minimise the weighted squares from theta (members, parameters), `weights` (members, runs)."""
        lower, upper = self.limits(held)
        return solve(
            self.model,
            np.clip(theta, lower, upper),
            weights * self.sweeps.weights,
            lower=lower,
            upper=upper,
            delta=np.inf,
            tolerance=FINE if exact else COARSE,
        )


@dataclass(frozen=True)
class Noise:
    """The standard deviation `size` of log loss about a surface, known as well as from `spare` runs of weight 1."""

    size: float
    spare: float


def noise_about(surface: Surface, theta: FloatArray, held: Collection[int] = ()) -> Noise:
    """Return the noise of runs about a surface at its best, theta (parameters,), of which `held` were given.

    Runs far from the best of their sweep have small weights W and yet residuals: with U an orthonormal basis of
    sqrt(W) J the weighted squares Q of noise 1 have the mean tr M = sum w (1 - |U_i|^2), where M = sqrt(W)
    (1 - U U^T) sqrt(W), and are spread as those of (tr M)^2 / tr M^2 runs (Satterthwaite 1946).
    """
    residuals, jacobian = (part[0] for part in surface.model(theta[None]))
    free = [column for column in range(theta.size) if column not in held]
    weights = surface.sweeps.weights
    left, sizes, _ = np.linalg.svd(jacobian[:, free] * np.sqrt(weights)[:, None], full_matrices=False)
    basis = left[:, sizes > sizes[0] * AS_GOOD_AS_NONE]
    own = np.sum(basis**2, axis=1)
    mean = float(np.sum(weights * (1 - own)))
    square = float(np.sum(weights**2 * (1 - 2 * own)) + np.sum((basis.T @ (weights[:, None] * basis)) ** 2))
    if mean <= AS_GOOD_AS_NONE or square <= 0:
        return Noise(float("nan"), 0.0)
    return Noise(float(np.sqrt(np.sum(weights * residuals**2) / mean)), mean**2 / square)


@dataclass(frozen=True)
class OwnOptima:
    """Where every sweep by itself has its minimum, given the common shape.

    `shift` (axes, cells) from where the law puts it, with standard errors `error` (axes, cells), in logarithms.
    """

    shift: FloatArray
    error: FloatArray


def own_optima(surface: Surface, theta: FloatArray, noise: float) -> OwnOptima:
    """Return each sweep's own minimum, for theta (parameters,) and the standard deviation of log loss `noise`.

    The errors are those of a surface under which every sweep has its own minimum: few sweeps tell their common
    shape no better than their minima. NaN where a sweep has too few runs, or none of the shape's slopes.
    """
    sweeps = surface.sweeps
    n_axes, n_cells = len(sweeps.settings), sweeps.n_cells
    shift, error = np.full((2, n_axes, n_cells), np.nan)
    for cell in range(n_cells):
        alone = replace(sweeps.only([cell]), traits=tuple(np.ones((1, 1)) for _ in sweeps.traits))
        if alone.log_loss.size <= n_axes:
            continue
        one = Surface(alone, surface.degree)
        optimum = surface.optima(theta[None])[0, :, cell]
        shape = surface.shape(theta[None])[0]
        found = np.concatenate([optimum, shape, [np.average(alone.log_loss, weights=alone.weights)]])
        held = {n_axes + number: float(value) for number, value in enumerate(shape)}
        solution = one.solve(found[None], np.ones((1, alone.log_loss.size)), held)
        known = [*range(n_axes), n_axes + shape.size]
        jacobian = one.model(solution.theta)[1][0][:, known]
        told = _sandwich(jacobian, alone.weights, noise) is not None
        if told and np.isfinite(solution.objective[0]):
            shift[:, cell] = solution.theta[0, :n_axes] - optimum
    known_cells = np.flatnonzero(np.isfinite(shift[0]))
    if known_cells.size:
        at = surface.optima(theta[None])[0][:, known_cells] + shift[:, known_cells]
        error[:, known_cells] = _errors(surface, theta, at, known_cells, noise)
    return OwnOptima(shift, error)


def _errors(surface: Surface, theta: FloatArray, at: FloatArray, cells: IntArray, noise: float) -> FloatArray:
    """Return the standard errors of minima `at` (axes, cells), of sweeps `cells`, each of which is its own."""
    sweeps = surface.sweeps.only(cells)
    free = Surface(replace(sweeps, traits=(np.eye(cells.size),) * len(at)), surface.degree)
    offsets = theta[surface.n_slopes + surface.n_shape :][cells]
    parameters = np.concatenate([at.ravel(), surface.shape(theta[None])[0], offsets])
    covariance = _sandwich(free.model(parameters[None])[1][0], sweeps.weights, noise)
    if covariance is None:
        return np.full(at.shape, np.nan)
    return np.sqrt(np.diag(covariance)[: at.size]).reshape(at.shape)


def _sandwich(jacobian: FloatArray, weights: FloatArray, noise: float) -> FloatArray | None:
    """Return the covariance of a weighted least-squares estimate; None where it is not determined."""
    bread = (jacobian * weights[:, None]).T @ jacobian
    scale = np.sqrt(np.diag(bread))
    if not np.all(scale > 0) or np.linalg.cond(bread / np.outer(scale, scale)) > 1e10:
        return None
    inverse = np.linalg.inv(bread)
    meat = (jacobian * weights[:, None] ** 2).T @ jacobian
    return np.asarray(noise**2 * inverse @ meat @ inverse)
