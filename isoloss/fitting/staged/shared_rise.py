"""How the optima of several sites rise with the batch, under one form and one B0."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.distributions import chi_squared_quantile
from isoloss.fitting.options import FitOptions
from isoloss.fitting.staged.shared_optima import Optima
from isoloss.laws.lr_of_batch import EXPONENTS, SATURATING, log_of_batch

FARTHEST = 1000.0
"""How many times below the smallest batch, and above the largest, B0 is looked for: beyond, nothing changes."""

EXACT = 1e-6
"""No logarithm of an optimum is known closer."""

POLISHED = 4
"""Gauss-Newton steps from the best node on."""

NODES = 60
"""Values of B0 that are tried for each tenfold."""


@dataclass(frozen=True)
class Sites:
    """Of every sweep its site and log batch, (sweeps,) each, and of every site what is trained, (sites,)."""

    site: IntArray
    n_params: FloatArray
    n_tokens: FloatArray
    log_batch: FloatArray

    @property
    def count(self) -> int:
        return int(self.n_params.size)

    def only(self, sweeps: IntArray) -> Sites:
        """Return these sweeps; their sites keep their numbers."""
        return replace(self, site=self.site[sweeps], log_batch=self.log_batch[sweeps])


@dataclass(frozen=True)
class Rise:
    """A form fitted to optima: `log_eta` (members, sites) and `log_b0` (members,), NaN where there is no sweep.

    `limits` are those of B0 at the asked level, None for a side without one and for forms without it; `variance` is
    their variance, (sweeps,), `scatter` how far optima lie off beyond their errors, as a standard deviation.
    """

    form: str
    log_eta: FloatArray
    log_b0: FloatArray
    limits: tuple[float | None, float | None] | None
    variance: FloatArray
    scatter: float

    @property
    def saturates(self) -> bool:
        return self.form in SATURATING

    @property
    def power(self) -> float:
        return EXPONENTS[self.form]

    def told(self, sites: Sites, site: IntArray, log_batch: FloatArray) -> FloatArray:  # noqa: ARG002
        """Return the log learning rate at batches of sites, (members, n)."""
        return self.log_eta[:, site] + log_of_batch(self.form, log_batch[None], self.log_b0[:, None])


def rise_of(form: str, optima: Optima, sites: Sites, asked: FitOptions | None) -> Rise:
    """Return the form nearest to the optima, by weighted squares of logarithms; draws scatter as the optima do.

    Without options there are no limits of B0.
    """
    once = _nearest(form, optima.log_lr[:1], optima.unit_error**2, sites)
    scatter = _scatter(form, once, optima, sites)
    variance = np.maximum(optima.error**2 + scatter**2, EXACT**2)
    first = _nearest(form, optima.log_lr[:1], variance, sites)
    log_lr = optima.log_lr
    if asked is not None and len(log_lr) > 1:
        drawn = np.random.default_rng([asked.seed, 6]).standard_normal(log_lr[1:].shape)
        log_lr = np.concatenate([log_lr[:1], log_lr[1:] + scatter * drawn])
        first = _nearest(form, log_lr, variance, sites)
    if asked is None or form not in SATURATING:
        return Rise(form, first.log_eta, first.log_b0, None, variance, scatter)
    limits = _limits(first, sites, asked.level)
    log_b0 = _with_open_ends(first, limits)
    log_eta = _means(log_lr - log_of_batch(form, sites.log_batch[None], log_b0[:, None]), 1 / variance, sites)
    return Rise(form, log_eta, log_b0, limits, variance, scatter)


def _with_open_ends(found: _Nearest, limits: tuple[float | None, float | None]) -> FloatArray:
    """Return log B0 (members,) of which draws lie in turn where they are and at each end that is open.

    Draws around an estimate do not show that an end was not excluded: with B0 at the upper one the form goes on
    without saturating.
    """
    ends = [
        node for node, limit in zip((found.nodes[0], found.nodes[-1]), limits, strict=True) if limit is None
    ]
    log_b0 = found.log_b0.copy()
    for place, end in enumerate(ends):
        log_b0[1 + place :: 1 + len(ends)] = end
    return log_b0


@dataclass(frozen=True)
class _Nearest:
    """The best of every member, with the squares (members, nodes) over `nodes` (nodes,) of log B0."""

    log_eta: FloatArray
    log_b0: FloatArray
    squares: FloatArray
    nodes: FloatArray


def _nearest(form: str, log_lr: FloatArray, variance: FloatArray, sites: Sites) -> _Nearest:
    low, high = sites.log_batch.min() - np.log(FARTHEST), sites.log_batch.max() + np.log(FARTHEST)
    n_nodes = 1 + int(np.ceil((high - low) / np.log(10) * NODES)) if form in SATURATING else 1
    nodes = np.linspace(low, high, n_nodes)
    w = 1 / variance
    shape = _centred(log_of_batch(form, sites.log_batch[None], nodes[:, None]), w, sites)
    away = _centred(log_lr, w, sites)
    squares = (w * away**2).sum(axis=1)[:, None] - 2 * (w * away) @ shape.T + (w * shape**2).sum(axis=1)
    log_b0 = _lowest(squares, nodes)
    if nodes.size > 1:
        log_b0 = _polished(form, log_b0, away, w, sites, nodes)
    rest = log_lr - log_of_batch(form, sites.log_batch[None], log_b0[:, None])
    return _Nearest(_means(rest, w, sites), log_b0, squares, nodes)


def _centred(values: FloatArray, w: FloatArray, sites: Sites) -> FloatArray:
    """Return values (n, sweeps) less the weighted mean of their site."""
    return values - _means(values, w, sites)[:, sites.site]


def _means(values: FloatArray, w: FloatArray, sites: Sites) -> FloatArray:
    """Return the weighted means of values (n, sweeps) at every site, (n, sites); NaN for one without sweeps."""
    of = np.zeros((w.size, sites.count))
    of[np.arange(w.size), sites.site] = w
    total = of.sum(axis=0)
    return np.asarray((values @ of) / np.where(total > 0, total, np.nan))


def _lowest(squares: FloatArray, nodes: FloatArray) -> FloatArray:
    """Return where squares (members, nodes) are least, (members,): the vertex of a parabola through three nodes."""
    best = np.argmin(squares, axis=1)
    if nodes.size < 3:
        return nodes[best]
    inner = np.clip(best, 1, nodes.size - 2)
    left, here, right = (squares[np.arange(len(squares)), inner + k] for k in (-1, 0, 1))
    bend = left - 2 * here + right
    step = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
    vertex = nodes[inner] + np.clip(step, -1, 1) * (nodes[1] - nodes[0])
    return np.where(inner == best, vertex, nodes[best])


def _polished(
    form: str, log_b0: FloatArray, away: FloatArray, w: FloatArray, sites: Sites, nodes: FloatArray
) -> FloatArray:
    """Return log B0 (members,) closer to the least squares of `away` (members, sweeps), within a node."""
    begin, reach = log_b0, nodes[1] - nodes[0]
    for _ in range(POLISHED):
        shape = _centred(log_of_batch(form, sites.log_batch[None], log_b0[:, None]), w, sites)
        share = 1 / (1 + np.exp(sites.log_batch[None] - log_b0[:, None]))
        along = _centred(-EXPONENTS[form] * share, w, sites)
        bend = (w * along**2).sum(axis=1)
        step = (w * along * (away - shape)).sum(axis=1) / np.where(bend > 0, bend, 1.0)
        log_b0 = np.clip(np.clip(log_b0 + step, begin - reach, begin + reach), nodes[0], nodes[-1])
    return log_b0


def misfit(form: str, log_lr: FloatArray, variance: FloatArray, sites: Sites) -> float:
    """Return the least weighted sum of squares of optima (sweeps,) about a form."""
    return float(_nearest(form, log_lr[None], variance, sites).squares.min())


def _scatter(form: str, found: _Nearest, optima: Optima, sites: Sites) -> float:
    """Return how far the optima lie from the form beyond their errors, as a standard deviation."""
    told = found.log_eta[0][sites.site] + log_of_batch(form, sites.log_batch, found.log_b0[0])
    off, n = optima.log_lr[0] - told, sites.site.size
    left = n - np.unique(sites.site).size - (form in SATURATING)
    if left < 1:
        return 0.0
    return float(np.sqrt(max(0.0, float(np.mean(off**2 * n / left - optima.error**2)))))


def _limits(found: _Nearest, sites: Sites, level: float) -> tuple[float | None, float | None]:
    """Return the ends of B0 by its profile: where squares rise by what chance allows, None where they do not."""
    squares, nodes = found.squares[0], found.nodes
    left = sites.site.size - np.unique(sites.site).size - 1
    best = float(squares.min())
    scale = max(1.0, best / left) if left > 0 else 1.0
    allowed = squares <= best + scale * float(chi_squared_quantile(level, 1)) + 1e-9
    inside = np.flatnonzero(allowed)
    low = None if inside[0] == 0 else float(np.exp(nodes[inside[0]]))
    high = None if inside[-1] == nodes.size - 1 else float(np.exp(nodes[inside[-1]]))
    return low, high
