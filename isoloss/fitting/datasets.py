"""What a law is fitted to: runs with their points, and which of them may be predicted from the others."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.fitting.ranges import CurveRange, FittedRange, TableRange
from isoloss.fitting.schedule_groups import farthest_first, schedule_groups
from isoloss.laws import CurveLaw, Features, Law, TableLaw
from isoloss.laws.law import Derived
from isoloss.observations import Curve, RunTable
from isoloss.observations.tables import COMPUTE

SIZES_NEEDED = 4
"""Model sizes among curves from which on the largest is predicted from the smaller ones, not a schedule."""

STAGES = 4
"""How many times a table is cut by scale, to predict what is larger from what is smaller."""

TENTH = 0.1


@dataclass(frozen=True)
class Fold:
    """Runs that are predicted from others, by their positions; `what` names them in words."""

    fitted: tuple[int, ...]
    predicted: tuple[int, ...]
    what: str


class Dataset(ABC):
    """Runs that a law is fitted to. Points stand one run after another: `lengths` of them, `observed` (points,).

    `scatter` (points,) is how far, in log loss, a single point lay from an observation that is a mean.
    """

    run_ids: tuple[str, ...]
    lengths: tuple[int, ...]
    observed: FloatArray
    scatter: FloatArray
    notes: tuple[str, ...]
    observation: ClassVar[str]
    """What one observation is called."""

    spare_needed: ClassVar[int]
    """How many more distinct observations than parameters say anything of these."""

    @cached_property
    def slices(self) -> list[slice]:
        """The points of each run."""
        return [slice(low, high) for low, high in pairwise(np.cumsum([0, *self.lengths]))]

    @property
    def n_runs(self) -> int:
        return len(self.run_ids)

    @property
    @abstractmethod
    def folds_needed(self) -> int:
        """How many folds must be predicted before their error says something of another run."""

    @abstractmethod
    def prepare(self, law: Law[Any]) -> Features:
        """Return the law's features of all points."""

    @abstractmethod
    def only(self, positions: Collection[int]) -> Dataset:
        """Return the runs at these positions."""

    @abstractmethod
    def alike(self) -> list[list[int]]:
        """Return the positions of the runs in groups that differ by chance alone: one configuration each."""

    @abstractmethod
    def folds(self, law: Law[Any]) -> list[Fold]:
        """Return who is predicted from whom; the first fold is the one whose score stands for the fit."""

    @abstractmethod
    def distinct(self) -> int:
        """Return how many observations are not made under the same conditions as another one."""

    @abstractmethod
    def fitted_range(self, law: Law[Any], skip_steps: int | None) -> FittedRange:
        """Return where the data lie; `skip_steps` of the fit's options, None where it leaves out warm-ups."""

    @abstractmethod
    def derived(self, law: Law[Any], theta: FloatArray) -> Derived:
        """Return what follows from the law's parameters theta (members, parameters) for these runs."""

    @abstractmethod
    def sha256(self) -> str:
        """Return the hash of all that enters a fit; the order of the runs does not matter."""


class CurveDataset(Dataset):
    """Loss curves under their schedules."""

    observation = "point"
    spare_needed = 1

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curves = list(curves)
        self.run_ids = tuple(curve.run_id for curve in curves)
        self.lengths = tuple(curve.n_points for curve in curves)
        self.observed = np.concatenate([curve.loss_nats for curve in curves])
        self.scatter = np.concatenate(
            [np.zeros(curve.n_points) if curve.scatter is None else curve.scatter for curve in curves]
        )
        self.notes = tuple(f"run {curve.run_id}: {note}" for curve in curves for note in curve.notes)

    def prepare(self, law: Law[Any]) -> Features:
        assert isinstance(law, CurveLaw)
        features: Features = law.prepare(self.curves)
        return features

    def only(self, positions: Collection[int]) -> CurveDataset:
        return CurveDataset([self.curves[position] for position in positions])

    @cached_property
    def _rates(self) -> list[tuple[FloatArray, FloatArray]]:
        """The learning rates and their sums at the points of each curve."""
        return [(curve.schedule.lr(curve.step), curve.schedule.area(curve.step)) for curve in self.curves]

    @cached_property
    def _schedules(self) -> list[list[int]]:
        return schedule_groups([curve.schedule for curve in self.curves])

    def alike(self) -> list[list[int]]:
        return [
            [group[index] for index in same]
            for group in self._schedules
            for same in _equal([(self.curves[position].n_params,) for position in group])
        ]

    def folds(self, law: Law[Any]) -> list[Fold]:  # noqa: ARG002 (tables ask)
        """Leave out every schedule in turn, the one that differs most first; or the largest model before all."""
        order = farthest_first(self._schedules, [curve.schedule for curve in self.curves])
        return [*self._by_size(), *(self._without(group) for group in order)]

    def _by_size(self) -> list[Fold]:
        sizes = sorted({curve.n_params for curve in self.curves if curve.n_params is not None})
        if len(sizes) < SIZES_NEEDED:
            return []
        of = [curve.n_params for curve in self.curves]
        cuts = sizes[-1:] + sizes[SIZES_NEEDED - 1 : -1][::-1][: STAGES - 1]
        return [_split(of, size, f"the runs of {size:g} parameters, from smaller ones") for size in cuts]

    def _without(self, group: Sequence[int]) -> Fold:
        left_out = set(group)
        others = tuple(position for position in range(self.n_runs) if position not in left_out)
        return Fold(others, tuple(group), f"the schedule of run {self.run_ids[group[0]]!r}")

    @property
    def folds_needed(self) -> int:
        return 3

    def distinct(self) -> int:
        return len(self.observed)

    def fitted_range(self, law: Law[Any], skip_steps: int | None) -> CurveRange:
        assert isinstance(law, CurveLaw)
        return CurveRange.of(self.curves, self._rates, law, after_warmup=skip_steps is None)

    def derived(self, law: Law[Any], theta: FloatArray) -> Derived:
        assert isinstance(law, CurveLaw)
        return law.derived(theta, self.curves)

    def sha256(self) -> str:
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256()
        in_order = sorted(zip(self.curves, self._rates, strict=True), key=lambda one: one[0].run_id)
        for curve, rates in in_order:
            said: tuple[object, ...] = (curve.run_id, curve.n_params, curve.n_params_kind, curve.weight_decay)
            said += (curve.batch_tokens, curve.schedule.warmup_steps, curve.schedule.peak_lr)
            digest.update("\0".join(map(str, said)).encode())
            _update(digest, (curve.step, curve.loss_nats, *rates))
        return digest.hexdigest()


class TableDataset(Dataset):
    """Finished runs, a point each."""

    observation = "run"
    spare_needed = 2  # with one, 90 percent intervals held the truth in .6 to .73 of simulated studies

    def __init__(self, table: RunTable, columns: Sequence[str]) -> None:
        self.table = table
        self.columns = {name: table.column(name) for name in columns}
        self.run_ids, self.lengths = table.run_ids, (1,) * table.n_runs
        self.observed, self.notes = table.outcome, table.notes
        self.scatter = np.zeros(table.n_runs)

    def prepare(self, law: Law[Any]) -> Features:
        assert isinstance(law, TableLaw)
        features: Features = law.prepare(self.columns)
        return features

    def only(self, positions: Collection[int]) -> TableDataset:
        return TableDataset(self.table.only(list(positions)), list(self.columns))

    def alike(self) -> list[list[int]]:
        return _equal(list(zip(*self.columns.values(), strict=True)))

    def folds(self, law: Law[Any]) -> list[Fold]:
        """Predict the largest tenth from the rest, then, at several cuts by scale, the next from the smaller."""
        assert isinstance(law, TableLaw)
        scale = scale_of(self.table, law)
        order = np.argsort(scale, kind="stable")
        edges = np.unique(scale)
        tenth = min(max(1, round(TENTH * len(edges))), len(edges) - 1)
        if not tenth:
            return []
        n_first = int(np.sum(scale >= edges[-tenth]))
        # Many runs of one scale are not parted, and may be more than a tenth.
        usual = n_first <= max(1, round(1.5 * TENTH * scale.size))
        named = "the largest tenth of the runs" if usual else f"the {n_first} largest of {scale.size} runs"
        first = _between(scale, order, edges[-tenth], np.inf, named)
        shares = np.linspace(0.4, 0.9, STAGES + 1)[:-1]
        cuts = edges[np.minimum(np.round(shares * len(edges)).astype(np.int64), len(edges) - 1)]
        ends = [*cuts[1:], edges[-tenth]]
        rolling = [
            _between(scale, order, low, high) for low, high in zip(cuts, ends, strict=True) if low < high
        ]
        return [first, *rolling]

    @property
    def folds_needed(self) -> int:
        return 1

    def distinct(self) -> int:
        return len(self.alike())

    def fitted_range(self, law: Law[Any], skip_steps: int | None) -> TableRange:  # noqa: ARG002 (curves)
        assert isinstance(law, TableLaw)
        size = self.table.column("n_params")
        unread = None if "n_params" in law.columns or np.isnan(size).any() else size
        return TableRange.of(self.columns, law.scale(self.columns), self.table.n_params_kind, unread)

    def derived(self, law: Law[Any], theta: FloatArray) -> Derived:
        assert isinstance(law, TableLaw)
        return law.derived(theta)

    def sha256(self) -> str:
        digest = hashlib.sha256()
        order = np.argsort(self.run_ids)
        for row in order:
            digest.update(f"{self.run_ids[row]}\0".encode())
        digest.update(f"{self.table.n_params_kind}\0{self.table.target}\0".encode())
        for name, values in sorted(self.columns.items()):
            digest.update(name.encode())
            _update(digest, (values[order],))
        _update(digest, (self.observed[order],))
        return digest.hexdigest()


def scale_of(table: RunTable, law: TableLaw[Any]) -> FloatArray:
    """Return the runs' compute where all of them say it, so that all laws are tried on the same runs."""
    compute = table.column(COMPUTE)
    if not np.any(np.isnan(compute)):
        return compute
    return law.scale({name: table.column(name) for name in law.columns})


def _update(digest: Any, columns: Iterable[np.ndarray[Any, Any]]) -> None:
    for column in columns:
        digest.update(column.astype(column.dtype.newbyteorder("<"), copy=False).tobytes())


def _equal(keys: Sequence[tuple[object, ...]]) -> list[list[int]]:
    groups: dict[tuple[object, ...], list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    return list(groups.values())


def _split(sizes: Sequence[float | None], size: float, what: str) -> Fold:
    smaller = tuple(position for position, one in enumerate(sizes) if one is not None and one < size)
    return Fold(smaller, tuple(position for position, one in enumerate(sizes) if one == size), what)


def _between(scale: FloatArray, order: IntArray, low: float, high: float, what: str | None = None) -> Fold:
    """Predict the runs of scale low <= s < high from those below."""
    smaller, next_ones = order[scale[order] < low], order[(scale[order] >= low) & (scale[order] < high)]
    what = what or f"the {next_ones.size} next larger runs, from the {smaller.size} smallest"
    return Fold(tuple(map(int, smaller)), tuple(map(int, next_ones)), what)
