"""Where the data of a fit lay, and what a question about another run reaches beyond them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.errors import InvalidInput, Unidentified
from isoloss.laws import CurveLaw, Features, Law, TableLaw
from isoloss.observations import Curve, PlannedRun
from isoloss.observations.counts import HIGHEST_COUNT, LOWEST_COUNT, N_PARAMS_KINDS, stated_n_params
from isoloss.observations.curves import weight_decay_of
from isoloss.observations.tables import COMPUTE, FOLLOWING
from isoloss.schedules import Schedule, schedule_from_spec

SAME_PEAK = 1e-3
"""Peaks of the learning rate within this relative distance count as one."""

OFF_PATH = 0.05
"""How far off the path of the fitted runs, in logarithms, a size may lie that a law does not read."""

BARELY = 1.001
"""Factors below this are a matter of rounding."""

PREDICTED_STEPS = 200
"""Points of a predicted curve where the caller asks for no steps."""


Ask = Callable[[Mapping[str, Any]], "Question"]


class Question(ABC):
    """A run to predict: its `n_points` values, and how far each lies beyond the fitted runs."""

    steps: IntArray | None
    n_points: int

    @abstractmethod
    def features(self, law: Law[Any], part: slice) -> Features:
        """Return the law's features of some of the values."""

    @abstractmethod
    def reach(self) -> FloatArray:
        """Return by how much the error of the law has grown at each value, at least 1: see `growth`."""

    @abstractmethod
    def unlike(self) -> FloatArray:
        """Return the error in log loss, as one standard deviation, (n_points,), of what no fitted run has shown."""

    @abstractmethod
    def least(self, law: Law[Any], theta: FloatArray) -> FloatArray:
        """Return the log values (n_points,) below which a law with theta (parameters,) gives no answer."""

    @abstractmethod
    def in_order(self, values: FloatArray) -> FloatArray:
        """Return values (n_points,) as they were asked for."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return how far the prediction reaches, as factors and in `warnings`."""

    def not_read(self, laws: Sequence[Law[Any]]) -> list[str]:  # noqa: ARG002
        """Return what of a configuration was given and none of the laws that answer reads."""
        return []

    @abstractmethod
    def again(self, ask: Ask) -> Question:
        """Return the same question as another fit understands it, by what it makes of the caller's words."""


class FittedRange(ABC):
    """Where the data of a fit lay; one kind for curves, one for tables."""

    kind: ClassVar[str]
    predicted_from_others: ClassVar[str]
    """What is left out in turn and predicted from the rest."""

    @abstractmethod
    def ask(self, law: Law[Any], asked: Mapping[str, Any], missing: Mapping[str, str]) -> Question:
        """Return the question that a caller's words mean; `missing` are parameters that are not determined.

        Raises InvalidInput for words that mean none, Unidentified for one that the fit cannot answer.
        """

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]


def range_from_dict(document: Mapping[str, Any]) -> FittedRange:
    """Return the range that `as_dict` described."""
    fields = dict(document)
    kind = fields.pop("kind", "curves")
    return TableRange(**fields) if kind == TableRange.kind else CurveRange.from_fields(fields)


def _count(asked: Mapping[str, Any], kind: str | None) -> Any:
    """Return the parameter count that is asked for, by name or in a configuration, in the fit's kind."""
    config = asked.get("config") or {}
    said = config.get("n_params_kind")
    if said is not None and kind is not None and said != kind and config.get(f"n_params_{kind}") is None:
        reason = f"the fit counts {kind} parameters, the question {said} ones"
        raise InvalidInput(field="config.n_params_kind", reason=reason)
    own = stated_n_params(config, kind)[1]
    return _only_one(
        "n_params", asked.get("n_params"), own if own is not None else stated_n_params(config)[1]
    )


def _only_one(name: str, by_name: Any, in_config: Any) -> Any:
    """Return what is asked for, by name or in a configuration; raises InvalidInput where these differ."""
    if by_name is None or in_config is None:
        return in_config if by_name is None else by_name
    if not _same(by_name, in_config):
        reason = f"differs from config.{name}: give one of them"
        raise InvalidInput(field=name, reason=reason)
    return by_name


def _same(one: Any, other: Any) -> bool:
    try:
        first, second = (np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in (one, other))
        return np.array_equal(first, second)
    except (TypeError, ValueError):  # what is no number is refused where it is read
        return True


@dataclass(frozen=True)
class CurveRange(FittedRange):
    """The steps, learning rates, areas and sizes of the curves that a fit has seen.

    `after_warmup` is whether the points of every warm-up were left out, of which the fit then says nothing.
    """

    kind: ClassVar[str] = "curves"
    predicted_from_others: ClassVar[str] = "schedules"

    first_step: int
    last_step: int
    first_area: float
    last_area: float
    lowest_lr: float
    peak_lrs: tuple[float, ...]
    n_params: tuple[float, ...]
    n_params_kind: str | None
    batch_tokens: float | None = None
    weight_decays: tuple[float, ...] = ()
    batches: tuple[float, ...] = ()
    carries_over_peaks: bool = False
    knows_sizes: bool = True
    error_of_peak: float = 0.02
    lowest_loss: float = 0.0
    after_warmup: bool = False

    @classmethod
    def of(
        cls,
        curves: Sequence[Curve],
        rates: Sequence[tuple[FloatArray, FloatArray]],
        law: CurveLaw[Any],
        *,
        after_warmup: bool,
    ) -> CurveRange:
        """Return the range of curves, of which `rates` are the learning rates and areas at their points."""
        batches = {curve.batch_tokens for curve in curves}
        return cls(
            first_step=int(min(curve.step[0] for curve in curves)),
            last_step=int(max(curve.step[-1] for curve in curves)),
            first_area=float(min(area[0] for _, area in rates)),
            last_area=float(max(area[-1] for _, area in rates)),
            lowest_lr=float(min(lr.min() for lr, _ in rates)),
            peak_lrs=tuple(sorted({curve.schedule.peak_lr for curve in curves})),
            n_params=_values(curve.n_params for curve in curves),
            n_params_kind=next((curve.n_params_kind for curve in curves if curve.n_params_kind), None),
            batch_tokens=batches.pop() if len(batches) == 1 else None,
            weight_decays=_values(curve.weight_decay for curve in curves),
            batches=_values(curve.batch_tokens for curve in curves),
            carries_over_peaks=law.carries_over_peaks,
            knows_sizes=law.knows_sizes,
            error_of_peak=law.error_of_peak,
            lowest_loss=float(min(curve.loss_nats.min() for curve in curves)),
            after_warmup=after_warmup,
        )

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> CurveRange:
        tuples = {name: tuple(fields.get(name, ())) for name in _SEVERAL}
        return cls(**{**fields, **tuples})

    def ask(self, law: Law[Any], asked: Mapping[str, Any], missing: Mapping[str, str]) -> CurveQuestion:
        if asked.get("schedule") is None:
            raise InvalidInput(field="schedule", reason=f"the law {law.name} predicts from one")
        if asked.get("n_tokens") is not None:
            raise InvalidInput(
                field="n_tokens", reason=f"the law {law.name} predicts from a schedule's steps"
            )
        schedule = asked["schedule"]
        if not isinstance(schedule, Schedule):
            schedule = schedule_from_spec(schedule)
        steps = _steps(schedule, asked.get("steps"))
        self._refuse_warmup(schedule, steps)
        config = asked.get("config") or {}
        size = self.size(_number("config.n_params", _count(asked, self.n_params_kind)), missing.get("beta"))
        at, back = np.unique(steps, return_inverse=True)
        _number("config.weight_decay", config.get("weight_decay"))
        decay = weight_decay_of(config)
        run = PlannedRun(at, schedule, size, self.batch_tokens, self._weight_decay(decay))
        tells_peaks = self.carries_over_peaks and not missing
        return CurveQuestion(self, asked, run, steps, back, tells_peaks)

    def _refuse_warmup(self, schedule: Schedule, steps: IntArray) -> None:
        if self.after_warmup and steps.min() < schedule.warmup_steps:
            reason = (
                f"step {steps.min()} lies inside the warm-up, which ends at step {schedule.warmup_steps}; the fit "
                "left out such points and does not describe them: ask from its end on, or fit with skip_steps"
            )
            raise InvalidInput(field="steps", reason=reason)

    def _weight_decay(self, asked: float | None) -> float | None:
        return asked if asked is not None else next(iter(self.weight_decays), None)

    def size(self, asked: float | None, undetermined: str | None) -> float | None:
        """Return the model size to predict for, (None where the fit has no size term).

        Raises Unidentified for another size than the fitted ones where the fit cannot tell sizes apart, and
        InvalidInput where the fit has several sizes and none is asked for.
        """
        if asked is not None and not (np.isfinite(asked) and asked > 0):
            raise InvalidInput(field="config.n_params", reason="must be above 0")
        if asked is None and len(self.n_params) > 1:
            sizes = ", ".join(f"{size:g}" for size in self.n_params)
            raise InvalidInput(
                field="config.n_params", reason=f"is needed: the fit is over the sizes {sizes}"
            )
        alone = len(self.n_params) == 1 or undetermined is not None
        if asked is not None and alone and self.n_params and not np.isclose(asked, self.n_params).any():
            sizes = " and ".join(f"{size:g}" for size in self.n_params)
            raise Unidentified(reason=f"the fit has seen runs of {sizes} parameters alone, not of {asked:g}")
        return asked if asked is not None else next(iter(self.n_params), None)


_SEVERAL = ("peak_lrs", "n_params", "weight_decays", "batches")


@dataclass(frozen=True)
class CurveQuestion(Question):
    """The losses of a run at `steps`; `run.step` are the same ones in order, each once, `back` their places.

    `tells_peaks` is whether the fit knows how the loss depends on the peak learning rate.
    """

    range: CurveRange
    asked: Mapping[str, Any]
    run: PlannedRun
    steps: IntArray
    back: IntArray
    tells_peaks: bool = False

    @property
    def n_points(self) -> int:  # type: ignore[override]
        return int(self.run.step.size)

    def features(self, law: Law[Any], part: slice) -> Features:
        assert isinstance(law, CurveLaw)
        features: Features = law.prepare([replace(self.run, step=self.run.step[part])])
        return features

    def in_order(self, values: FloatArray) -> FloatArray:
        return values[self.back]

    def again(self, ask: Ask) -> Question:
        return ask(self.asked)

    def reach(self) -> FloatArray:
        """Return how far beyond the fitted runs each step lies, at least 1, as the square root of the factors.

        That is in the sum of learning rates, after the last fitted point or before the first, times how far
        the model is from the fitted sizes: errors are taken to grow like a random walk.
        """
        area = self.run.schedule.area(self.run.step)
        with np.errstate(divide="ignore"):
            beyond = np.maximum(area / self.range.last_area, self.range.first_area / area)
        return np.asarray(np.sqrt(np.maximum(beyond, 1.0) * self._size_factor()))

    def unlike(self) -> FloatArray:
        doublings = 0.0 if self.tells_peaks else float(np.log2(self._peak_factor()))
        return np.full(self.n_points, self.range.error_of_peak * doublings)

    def least(self, law: Law[Any], theta: FloatArray) -> FloatArray:
        """Return what remains at the end, or the lowest fitted loss where annealing has gone below that.

        At another peak alone, of laws whose gain grows with the learning rate: it may take more than there is.
        """
        assert isinstance(law, CurveLaw)
        if not law.gains_with_rates or self._peak_factor() <= 1 + SAME_PEAK:
            return np.full(self.n_points, -np.inf)
        floor = min(float(theta[law.index(law.floor)]), self.range.lowest_loss)
        return np.full(self.n_points, np.log(floor) if floor > 0 else -np.inf)

    def _peak_factor(self) -> float:
        """Return how many times the peak learning rate lies outside the fitted ones, or from the nearest one."""
        peak, fitted = self.run.schedule.peak_lr, np.array(self.range.peak_lrs)
        if self.tells_peaks:
            return max(1.0, peak / fitted[-1], fitted[0] / peak)
        return float(np.min(np.maximum(peak / fitted, fitted / peak)))

    def _size_factor(self) -> float:
        size, fitted = self.run.n_params, self.range.n_params
        if size is None or not fitted:
            return 1.0
        return max(1.0, size / fitted[-1], fitted[0] / size)

    def describe(self) -> dict[str, Any]:
        factors = {
            "area_factor": max(1.0, float(self.run.schedule.area(self.steps).max()) / self.range.last_area),
            "steps_factor": max(1.0, float(self.steps.max()) / self.range.last_step),
            "n_params_factor": self._size_factor(),
            "peak_lr_factor": self._peak_factor(),
        }
        early = bool(self.steps.min() < self.range.first_step)
        return {
            **factors,
            "before_first_point": early,
            "is_extrapolation": early or max(factors.values()) > 1 + SAME_PEAK,
            "warnings": [*self._beyond(factors), *self._unlike()],
        }

    def _beyond(self, factors: Mapping[str, float]) -> Iterator[str]:
        if factors["area_factor"] > BARELY:
            yield f"the sum of learning rates is {factors['area_factor']:.3g} times the largest fitted one"
        if factors["steps_factor"] > BARELY:
            times = f"{factors['steps_factor']:.3g} times the last fitted one, {self.range.last_step}"
            yield f"step {self.steps.max()} is {times}"
        if factors["n_params_factor"] > BARELY:
            yield f"the model is {factors['n_params_factor']:.3g} times outside the fitted sizes"
        if self.run.n_params is not None and not self.range.n_params:
            yield "the fitted runs state no model size: the size that was asked for has no effect"
        if self.steps.min() < self.range.first_step:
            yield f"steps before {self.range.first_step} come before the first fitted point"

    def _unlike(self) -> Iterator[str]:
        range_, schedule = self.range, self.run.schedule
        lowest, peak = float(schedule.lr(self.steps).min()), schedule.peak_lr
        if lowest < range_.lowest_lr * (1 - SAME_PEAK):
            yield f"the learning rate falls to {lowest:.3g}, below the lowest fitted one, {range_.lowest_lr:.3g}"
        known = self._peak_factor() <= 1 + SAME_PEAK
        if not known and not range_.carries_over_peaks:
            yield (
                f"no fitted run has the peak learning rate {peak:.3g}; this law does not carry over between peaks: "
                f"an error of {range_.error_of_peak:.0%} for each doubling is assumed"
            )
        elif not known and not self.tells_peaks:
            yield (
                f"the fitted runs do not show how the loss depends on the peak learning rate, and {peak:.3g} is "
                "another one: the answer rests on priors, and an error of "
                f"{range_.error_of_peak:.0%} for each doubling"
            )
        elif not known:
            yield f"the peak learning rate {peak:.3g} lies outside the fitted ones"
        decay = self.run.weight_decay
        if (
            range_.carries_over_peaks
            and decay is not None
            and not np.isclose(decay, range_.weight_decays).any()
        ):
            yield f"no fitted run has the weight decay {decay:g}: that it carries over is an assumption"


@dataclass(frozen=True)
class CurveQuestions(Question):
    """Questions about several runs as one: their values stand one run after another, each run's in its order."""

    each: tuple[CurveQuestion, ...]

    steps = None

    @property
    def n_points(self) -> int:  # type: ignore[override]
        return sum(one.n_points for one in self.each)

    def features(self, law: Law[Any], part: slice) -> Features:
        assert isinstance(law, CurveLaw)
        features: Features = law.prepare(list(self._runs(part)))
        return features

    def _runs(self, part: slice) -> Iterator[PlannedRun]:
        begin = 0
        for one in self.each:
            low, high = max(part.start - begin, 0), min(part.stop - begin, one.n_points)
            begin += one.n_points
            if low < high:
                yield replace(one.run, step=one.run.step[low:high])

    def in_order(self, values: FloatArray) -> FloatArray:
        runs = np.split(values, np.cumsum([one.n_points for one in self.each])[:-1])
        return np.concatenate([one.in_order(run) for one, run in zip(self.each, runs, strict=True)])

    def reach(self) -> FloatArray:
        return np.concatenate([one.reach() for one in self.each])

    def again(self, ask: Ask) -> Question:
        each = [one.again(ask) for one in self.each]
        return CurveQuestions(tuple(one for one in each if isinstance(one, CurveQuestion)))

    def unlike(self) -> FloatArray:
        return np.concatenate([one.unlike() for one in self.each])

    def least(self, law: Law[Any], theta: FloatArray) -> FloatArray:
        return np.concatenate([one.least(law, theta) for one in self.each])

    def describe(self) -> dict[str, Any]:
        said = [one.describe() for one in self.each]
        worst = {name: max(one[name] for one in said) for name in said[0] if name != "warnings"}
        return {**worst, "warnings": list(dict.fromkeys(why for one in said for why in one["warnings"]))}


@dataclass(frozen=True)
class TableRange(FittedRange):
    """The lowest and highest value of each column, and of the scale, of the runs that a fit has seen.

    Of a law that does not read the model size: `sizes` are the least and the largest of the runs, and `path` how
    they go with the scale, ln N = path[0] + path[1] ln(scale) within path[2]. The law holds along that path.
    """

    kind: ClassVar[str] = "table"
    predicted_from_others: ClassVar[str] = "runs"

    columns: Mapping[str, tuple[float, float]]
    scale: tuple[float, float]
    n_params_kind: str | None
    path: tuple[float, float, float] | None = None
    sizes: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        columns: Mapping[str, FloatArray],
        scale: FloatArray,
        n_params_kind: str | None,
        unread_size: FloatArray | None,
    ) -> TableRange:
        """Return the range of runs by their columns; `unread_size` (runs,) where the law does not read the size."""
        ends = {name: _ends(values) for name, values in columns.items()}
        if unread_size is None:
            return cls(ends, _ends(scale), n_params_kind)
        path = _path(np.log(scale), np.log(unread_size))
        return cls(ends, _ends(scale), n_params_kind, path, _ends(unread_size))

    def ask(self, law: Law[Any], asked: Mapping[str, Any], missing: Mapping[str, str]) -> TableQuestion:
        assert isinstance(law, TableLaw)
        for word in ("schedule", "steps"):
            if asked.get(word) is not None:
                raise InvalidInput(field=word, reason=f"the law {law.name} knows no {word}")
        given = {name: self._asked(name, asked) for name in law.columns}
        given |= {name: one for name, one in self._only(missing).items() if given.get(name, one) is None}
        for name, values in given.items():
            if values is None:
                raise InvalidInput(field=f"config.{name}", reason=f"the law {law.name} predicts from it")
        columns = dict(zip(given, _together(list(map(_positive_column, given.items()))), strict=True))
        self._refuse_other_sizes(law, asked, columns)
        self._refuse_undetermined(columns, missing)
        return TableQuestion(self, asked, columns, law.scale(columns))

    def _refuse_other_sizes(
        self, law: TableLaw[Any], asked: Mapping[str, Any], columns: Mapping[str, FloatArray]
    ) -> None:
        """Raise Unidentified for a size, which the law does not read, that lies off the path of the fitted runs."""
        values = None if self.path is None else self._asked("n_params", asked)
        if values is None:
            return
        assert self.path is not None
        assert self.sizes is not None
        size, scale = _together([_positive_column(("n_params", values)), law.scale(columns)])
        begin, slope, spread = self.path
        if np.all(np.abs(np.log(size) - begin - slope * np.log(scale)) <= spread + OFF_PATH):
            return
        said = f"{self.sizes[0]:g}" if slope == 0 else f"{self.sizes[0]:g} to {self.sizes[1]:g}"
        reason = (
            f"{law.name} does not read n_params: it holds for runs like the fitted ones, of {said}, and not for "
            "this size; fit a law that reads it"
        )
        raise Unidentified(reason=reason)

    def _only(self, missing: Mapping[str, str]) -> dict[str, float]:
        """Return the columns of which the runs have one value, and no other may be asked: it need not be said."""
        alone = {name: low for name, (low, high) in self.columns.items() if high <= low * (1 + OFF_PATH)}
        return {name: low for name, low in alone.items() if f"exponent_{name}" in missing}

    def _refuse_undetermined(self, columns: Mapping[str, FloatArray], missing: Mapping[str, str]) -> None:
        """Raise Unidentified for another value of a column that all runs have one of: its exponent is missing."""
        for name, values in columns.items():
            low, high = self.columns[name]
            known = np.all((values >= low / (1 + OFF_PATH)) & (values <= high * (1 + OFF_PATH)))
            if f"exponent_{name}" in missing and not known:
                raise Unidentified(reason=f"the fit has seen runs with {name} of {low:g} alone")

    def _asked(self, name: str, asked: Mapping[str, Any]) -> Any:
        if name == "n_params":
            return _count(asked, self.n_params_kind)
        own = _only_one(name, asked.get(name), (asked.get("config") or {}).get(name))
        if own is None and name == "compute_flops":
            return self._compute(asked)
        return own

    def _compute(self, asked: Mapping[str, Any]) -> Any:
        """Return 6 N D of what is asked for, None where that says no size or no data."""
        parts = [(name, self._asked(name, asked)) for name in ("n_params", "n_tokens")]
        if any(values is None for _, values in parts):
            return None
        size, data = _together([_positive_column(part) for part in parts])
        return 6 * size * data


@dataclass(frozen=True)
class TableQuestion(Question):
    """The outcomes of runs with these columns (n,)."""

    range: TableRange
    asked: Mapping[str, Any]
    columns: Mapping[str, FloatArray]
    scale: FloatArray

    steps = None

    @property
    def n_points(self) -> int:  # type: ignore[override]
        return int(self.scale.size)

    def features(self, law: Law[Any], part: slice) -> Features:
        assert isinstance(law, TableLaw)
        features: Features = law.prepare({name: values[part] for name, values in self.columns.items()})
        return features

    def in_order(self, values: FloatArray) -> FloatArray:
        return values

    def again(self, ask: Ask) -> Question:
        return ask(self.asked)

    def not_read(self, laws: Sequence[Law[Any]]) -> list[str]:
        """Return the names that were given, but those of the laws' columns and of what these follow from.

        A size that no law reads, and that is held against the path of the fitted runs, counts as read.
        """
        read = {name for law in laws if isinstance(law, TableLaw) for name in law.columns}
        if COMPUTE in read:
            read |= set(FOLLOWING[COMPUTE][1])
        if self.range.path is not None:
            read.add("n_params")
        sizes = {f"n_params_{kind}" for kind in (*N_PARAMS_KINDS, "kind")} if "n_params" in read else set()
        columns = {
            name: one for name, one in self.asked.items() if name not in ("config", "schedule", "steps")
        }
        given = {**(self.asked.get("config") or {}), **columns}
        return [name for name, one in given.items() if one is not None and name not in read | sizes]

    def unlike(self) -> FloatArray:
        return np.zeros(self.n_points)

    def least(self, law: Law[Any], theta: FloatArray) -> FloatArray:  # noqa: ARG002
        return np.full(self.n_points, -np.inf)

    def reach(self) -> FloatArray:
        """Return 1 plus how far beyond the fitted scales each run lies, in units of their own spread.

        In logarithms: a run as far beyond the largest as the largest is beyond the smallest has twice the error.
        """
        low, high = self.range.scale
        with np.errstate(divide="ignore", invalid="ignore"):
            beyond = np.log(np.maximum(np.maximum(self.scale / high, low / self.scale), 1.0))
            spread = max(np.log(high / low), np.log(2.0))
        return np.asarray(1 + beyond / spread)

    def describe(self) -> dict[str, Any]:
        factors = {f"{name}_factor": self._factor(name) for name in self.columns}
        factors["scale_factor"] = max(1.0, float(self.scale.max()) / self.range.scale[1])
        return {
            **factors,
            "is_extrapolation": max(factors.values()) > 1,
            "warnings": [
                f"{name} is {factors[f'{name}_factor']:.3g} times outside the fitted range {low:.3g} to {high:.3g}"
                for name, (low, high) in self.range.columns.items()
                if factors.get(f"{name}_factor", 1) > BARELY
            ],
        }

    def _factor(self, name: str) -> float:
        low, high = self.range.columns[name]
        values = self.columns[name]
        return max(1.0, float(values.max()) / high, low / float(values.min()))


def _ends(values: FloatArray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _path(log_scale: FloatArray, log_size: FloatArray) -> tuple[float, float, float]:
    """Return where sizes begin, how they grow with the scale, and how far they lie off that line, in logarithms."""
    varied = np.ptp(log_scale) > 0 and np.ptp(log_size) > 0
    slope, begin = np.polyfit(log_scale, log_size, 1) if varied else (0.0, float(log_size.mean()))
    return float(begin), float(slope), float(np.abs(log_size - begin - slope * log_scale).max())


def _positive_column(given: tuple[str, Any]) -> FloatArray:
    name, values = given
    try:
        column = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InvalidInput(field=f"config.{name}", reason="must be numbers") from error
    if column.ndim != 1 or not column.size or not np.all(np.isfinite(column) & (column > 0)):
        raise InvalidInput(field=f"config.{name}", reason="must be above 0")
    if not np.all((column >= LOWEST_COUNT) & (column <= HIGHEST_COUNT)):
        limits = f"must lie between {LOWEST_COUNT:g} and {HIGHEST_COUNT:g}"
        raise InvalidInput(field=f"config.{name}", reason=limits)
    return column


def _together(columns: Sequence[FloatArray]) -> Sequence[FloatArray]:
    """Return columns (n,) of one length, those of one value repeated; raises InvalidInput for other lengths."""
    lengths = {column.size for column in columns} - {1}
    if len(lengths) > 1:
        reason = f"the columns have {' and '.join(map(str, sorted(lengths)))} values"
        raise InvalidInput(field="config", reason=reason)
    return np.broadcast_arrays(*columns)


def _number(name: str, value: Any) -> float | None:
    """Return the number that is asked for, None where none is; raises InvalidInput for anything else."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(field=name, reason="must be one number") from error


def _values(found: Iterator[float | None] | Any) -> tuple[float, ...]:
    return tuple(sorted({value for value in found if value is not None}))


def _steps(schedule: Schedule, steps: Sequence[int] | IntArray | None) -> IntArray:
    if steps is None:
        first = max(1, schedule.warmup_steps)
        return np.unique(np.linspace(first, schedule.total_steps, PREDICTED_STEPS).round().astype(np.int64))
    at = np.atleast_1d(np.asarray(steps))
    if not at.size or at.dtype.kind not in "iu":
        raise InvalidInput(field="steps", reason="must be whole numbers, at least one")
    if at.min() < 1 or at.max() > schedule.total_steps:
        reason = f"must lie in 1..{schedule.total_steps}, the length of the schedule"
        raise InvalidInput(field="steps", reason=reason)
    return at.astype(np.int64)
