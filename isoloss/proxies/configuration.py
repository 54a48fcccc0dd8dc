"""What one proxy training is made of: checked before anything is trained, and readable without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

from isoloss.errors import InvalidInput
from isoloss.observations.curves import HIGHEST_WEIGHT_DECAY, WEIGHT_DECAY_KINDS
from isoloss.proxies.measurement_names import checked_measurements
from isoloss.proxies.optimizers import checked_options, optimizer_row
from isoloss.proxies.parametrization import PARAMETRIZATIONS, Parametrization
from isoloss.proxies.run_schedules import DEFAULT_SCHEDULE, schedule_of_run
from isoloss.proxies.shapes import BYTES, ParameterCounts, count_parameters
from isoloss.schedules import Schedule, schedule_from_spec

PRECISIONS = ("fp32", "bf16")
DECAY_GOES_WITH = ("lr", "constant")

MOST_WIDTH = 65_536
MOST_DEPTH = 1_000
MOST_SEQUENCE_LENGTH = 1_048_576
MOST_TOKENS = 10**15
MOST_LR = 1e6
"""Beyond any that is trained: larger ones are slips of the pen."""


@dataclass(frozen=True)
class ProxyConfig:
    """One training of a small decoder-only transformer; the same configuration and data give the same curve.

    Counts are in tokens. `width` is a multiple of `head_width`, `batch_tokens` of `sequence_length`; `n_tokens` is
    rounded to whole batches (`trained_tokens`). `peak_lr` and `weight_decay` are those at `base_width` under `mup`,
    where each weight has its own (`parametrization.py`); `scale_weight_decay` says whether the decay goes with the
    root of the width there: true at equal data and batch, false where the timescale law has set it for this very
    width (laws.md 6). `weight_decay_schedule` is that of an `independent` decay. `schedule` is a declaration as
    the API takes it, without `total_steps` and `peak_lr` (`run_schedules.py`). `eval_every` is a number of steps or
    a share of the run: the validation loss, over `val_tokens`, is measured then and at the last step.
    `micro_batch_tokens` are computed at once, None: the whole batch. `measure` names what is measured beside the
    loss every `measure_every` steps, or such share.
    """

    width: int
    depth: int
    peak_lr: float
    batch_tokens: int
    n_tokens: int
    head_width: int = 32
    sequence_length: int = 128
    tied_head: bool = False
    norm_gain: bool = False
    parametrization: str = "standard"
    base_width: int = 64
    base_head_width: int | None = None
    optimizer: str = "adamw"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    weight_decay: float = 0.1
    weight_decay_kind: str = "lr_scaled"
    weight_decay_schedule: str = "lr"
    scale_weight_decay: bool = True
    clip_norm: float | None = 1.0
    schedule: Mapping[str, Any] = field(default_factory=lambda: dict(DEFAULT_SCHEDULE))
    seed: int = 0
    data: str = "python-stdlib"
    measure: tuple[str, ...] = ()
    measure_every: int | float = 0.1
    precision: str = "fp32"
    eval_every: int | float = 0.25
    val_tokens: int = 32_768
    micro_batch_tokens: int | None = None

    def __post_init__(self) -> None:
        _check_types(self)
        object.__setattr__(self, "measure", checked_measurements(self.measure))
        object.__setattr__(self, "optimizer_options", MappingProxyType(dict(self.optimizer_options)))
        object.__setattr__(self, "schedule", MappingProxyType(dict(self.schedule)))
        _check_shape(self)
        _check_budget(self)
        _check_rates(self)
        checked_options(self.optimizer, self.optimizer_options)
        _check_width_rules(self)
        self.lr_schedule()

    def __reduce__(self) -> tuple[Any, ...]:
        return ProxyConfig.of, (self.document(),)

    def __hash__(self) -> int:
        return hash(repr(sorted(self.document().items())))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Return the configuration that a mapping describes, as JSON has it.

        Raises InvalidInput, which names the field, for an unknown one, a missing one, and one of a wrong type.
        """
        if not isinstance(given, Mapping):
            raise InvalidInput(field="config", reason=f"must be a mapping, not {type(given).__name__}")
        known = {one.name: one for one in fields(cls)}
        for name in given:
            if name not in known:
                raise InvalidInput(field=str(name), reason="a proxy's configuration has no such field")
        for name in REQUIRED:
            if name not in given:
                raise InvalidInput(field=name, reason="is missing")
        values = dict(given)
        if isinstance(values.get("measure"), list):
            values["measure"] = tuple(values["measure"])
        return cls(**values)

    def document(self) -> dict[str, Any]:
        """Return all fields as JSON has them; `of` reads them back."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    @property
    def batch_sequences(self) -> int:
        return self.batch_tokens // self.sequence_length

    @property
    def total_steps(self) -> int:
        """Optimiser steps: `n_tokens` in whole batches, rounded to the nearest number."""
        return (2 * self.n_tokens + self.batch_tokens) // (2 * self.batch_tokens)

    @property
    def trained_tokens(self) -> int:
        """Tokens that the steps take."""
        return self.total_steps * self.batch_tokens

    @property
    def width_rules(self) -> Parametrization:
        return Parametrization(self.parametrization, self.width, self.base_width)

    @property
    def attention_scale(self) -> float:
        return self.width_rules.attention_scale(self.head_width, self.base_head_width or self.head_width)

    def lr_factor(self, role: str) -> float:
        """Return what the schedule is multiplied by for weights of a role."""
        return self.width_rules.lr_factor(role, optimizer_row(self.optimizer).mup)

    def decay_of(self, role: str) -> float:
        """Return the weight decay, of `weight_decay_kind`, of weights of a role; 0: they are not decayed."""
        if not self.weight_decay:
            return 0.0
        powers = optimizer_row(self.optimizer).mup
        rules = self.width_rules
        factor = rules.decay_factor(role, self.weight_decay_kind, powers, self.scale_weight_decay)
        return self.weight_decay * factor

    def n_params(self, vocab_size: int = BYTES) -> ParameterCounts:
        """Return how many parameters the model has; the vocabulary is the data's, 256 for bytes."""
        return count_parameters(self.width, self.depth, vocab_size, self.tied_head, self.norm_gain)

    def lr_schedule(self) -> Schedule:
        """Return the schedule of steps 1 to `total_steps` that peaks at `peak_lr`; see `lr_factor`."""
        return self._schedule

    @cached_property
    def _schedule(self) -> Schedule:
        return schedule_from_spec(schedule_of_run(self.schedule, self.total_steps, self.peak_lr))

    def steps_at(self, every: int | float) -> frozenset[int]:
        """Return the steps that lie `every` so many, or every such share of the run, apart; the last one is in."""
        total = self.total_steps
        if isinstance(every, int):
            return frozenset((*range(every, total + 1, every), total))
        n_times = math.ceil(1 / every - 1e-9)
        return frozenset((*(max(1, round(k * every * total)) for k in range(1, n_times)), total))

    def timescale(self) -> float | None:
        """Return tau_peak = B / (eta lambda D) of the hidden matrices, None without decay (laws.md 3).

        Under mup at fixed tokens per parameter it falls with width^-1.5 where the timescale law wants it constant;
        then `weight_decay` is set by that law and `scale_weight_decay` is false (laws.md 6).
        """
        decay = self.decay_of("hidden")
        if not decay or self.weight_decay_kind == "l2":
            return None
        rate = decay if self.weight_decay_kind == "independent" else decay * self.hidden_peak_lr
        return 1 / (rate * self.total_steps)

    @property
    def hidden_peak_lr(self) -> float:
        """The highest learning rate that hidden matrices see."""
        return self.peak_lr * self.lr_factor("hidden")

    def run_specification(self, vocab_size: int = BYTES) -> dict[str, Any]:
        """Return `config` and `schedule` of the run as PUT .../runs takes them.

        Learning rate, weight decay and schedule are those of the hidden matrices, as laws read them; what was
        given, which under mup belongs to `base_width`, stands in `proxy`, from which `of` makes this again.
        """
        counts = self.n_params(vocab_size)
        config = {
            "n_params": counts.non_embedding,
            "n_params_kind": "non_embedding",
            "n_params_total": counts.total,
            "n_params_non_embedding": counts.non_embedding,
            "n_params_active": counts.total,
            "n_tokens": self.trained_tokens,
            "batch_tokens": self.batch_tokens,
            "sequence_length": self.sequence_length,
            "optimizer": self.optimizer,
            "peak_lr": self.hidden_peak_lr,
            "weight_decay": self.decay_of("hidden"),
            "weight_decay_kind": self.weight_decay_kind,
            "width": self.width,
            "depth": self.depth,
            "parametrization": self.parametrization,
            "dataset": self.data,
            "tokenizer": "bytes" if vocab_size == BYTES else f"{vocab_size} tokens",
            "seed": self.seed,
            "precision": self.precision,
            "proxy": self.document(),
        }
        if self.weight_decay_kind == "independent":
            config["weight_decay_schedule"] = self.weight_decay_schedule
        tau = self.timescale()
        if tau is not None:
            config["timescale_peak"] = tau
        return {"config": config, "schedule": self.hidden_schedule()}

    def hidden_schedule(self) -> dict[str, Any]:
        """Return the declaration of the learning rates that hidden matrices see."""
        factor = self.lr_factor("hidden")
        return schedule_of_run(self.schedule, self.total_steps, self.peak_lr, factor)


REQUIRED = ("width", "depth", "peak_lr", "batch_tokens", "n_tokens")
"""The fields without a default."""

_COUNTS = {
    "width": MOST_WIDTH,
    "depth": MOST_DEPTH,
    "head_width": MOST_WIDTH,
    "base_width": MOST_WIDTH,
    "base_head_width": MOST_WIDTH,
    "sequence_length": MOST_SEQUENCE_LENGTH,
    "batch_tokens": MOST_TOKENS,
    "n_tokens": MOST_TOKENS,
    "val_tokens": MOST_TOKENS,
    "micro_batch_tokens": MOST_TOKENS,
}
_NUMBERS = ("peak_lr", "weight_decay", "clip_norm")
_OPTIONAL = ("base_head_width", "micro_batch_tokens", "clip_norm")
_CHOICES: dict[str, tuple[Any, ...]] = {
    "tied_head": (False, True),
    "norm_gain": (False, True),
    "scale_weight_decay": (False, True),
    "parametrization": PARAMETRIZATIONS,
    "weight_decay_kind": WEIGHT_DECAY_KINDS,
    "weight_decay_schedule": DECAY_GOES_WITH,
    "precision": PRECISIONS,
}
_MAPPINGS = ("optimizer_options", "schedule")
_INTERVALS = ("eval_every", "measure_every")


def whole_batch(batch_tokens: float, sequence_length: int) -> int:
    """Return the number of tokens nearest to `batch_tokens` that is whole sequences, at least one."""
    return max(1, round(batch_tokens / sequence_length)) * sequence_length


def _check_types(config: ProxyConfig) -> None:
    for name, most in _COUNTS.items():
        _check_count(name, getattr(config, name), most)
    for name in _NUMBERS:
        object.__setattr__(config, name, _number(name, getattr(config, name)))
    for name, known in _CHOICES.items():
        _check_choice(name, getattr(config, name), known)
    for name in _MAPPINGS:
        _check_mapping(name, getattr(config, name))
    for name in _INTERVALS:
        _check_interval(name, getattr(config, name))
    if not isinstance(config.data, str) or not config.data:
        raise InvalidInput(field="data", reason="must be the name of a data set")
    if isinstance(config.seed, bool) or not isinstance(config.seed, int) or not 0 <= config.seed < 2**63:
        raise InvalidInput(field="seed", reason=f"{config.seed!r} is not a whole number from 0 to 2**63 - 1")


def _check_choice(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if not any(value is one or (isinstance(value, str) and value == one) for one in known):
        said = ", ".join(str(one).lower() for one in known)
        raise InvalidInput(field=name, reason=f"{str(value)[:40]!r} is not one of {said}")


def _check_mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidInput(field=name, reason="must be a mapping by names")


def _check_count(name: str, value: Any, most: int) -> None:
    if value is None and name in _OPTIONAL:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(field=name, reason=f"{str(value)[:40]!r} is not a whole number")
    if not 1 <= value <= most:
        raise InvalidInput(field=name, reason=f"{value} must lie in 1..{most}")


def _number(name: str, value: Any) -> float | None:
    if value is None and name in _OPTIONAL:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise InvalidInput(field=name, reason=f"{str(value)[:40]!r} is not a finite number")
    return float(min(max(value, -1e300), 1e300))  # an integer may be too large for a float


def _check_interval(name: str, value: Any) -> None:
    """Refuse what is neither a number of steps nor a share of the run."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(field=name, reason=f"{str(value)[:40]!r} is neither steps nor a share of the run")
    right = 1 <= value <= MOST_TOKENS if isinstance(value, int) else 1e-6 <= value <= 1
    if not right:
        raise InvalidInput(
            field=name,
            reason=f"{value!r} must be a number of steps, at least 1, or a share of the run in (0, 1]",
        )


def _check_shape(config: ProxyConfig) -> None:
    if config.head_width % 2:
        reason = f"{config.head_width} is odd, and rotary positions turn pairs of features"
        raise InvalidInput(field="head_width", reason=reason)
    if config.width % config.head_width:
        reason = f"{config.width} is not a multiple of head_width = {config.head_width}"
        raise InvalidInput(field="width", reason=reason)
    if config.width % 4 or (config.parametrization == "mup" and config.base_width % 4):
        name = "width" if config.width % 4 else "base_width"
        raise InvalidInput(
            field=name, reason="must be a multiple of 4: the MLP is 11/4 as wide, at every width"
        )
    length = config.sequence_length
    if config.batch_tokens < length:
        reason = f"{config.batch_tokens} is less than one sequence of {length}"
        raise InvalidInput(field="batch_tokens", reason=reason)
    if config.batch_tokens % length:
        near = whole_batch(config.batch_tokens, length)
        reason = (
            f"{config.batch_tokens} is not a multiple of sequence_length = {length}; the nearest is {near}"
        )
        raise InvalidInput(field="batch_tokens", reason=reason)
    micro = config.micro_batch_tokens
    if micro is not None and (micro % length or micro > config.batch_tokens):
        reason = f"{micro} must be a multiple of sequence_length = {length}, and no more than batch_tokens"
        raise InvalidInput(field="micro_batch_tokens", reason=reason)


def _check_budget(config: ProxyConfig) -> None:
    if config.n_tokens < config.batch_tokens:
        reason = f"{config.n_tokens} is less than one batch of {config.batch_tokens}"
        raise InvalidInput(field="n_tokens", reason=reason)
    if config.val_tokens < config.sequence_length:
        reason = f"{config.val_tokens} is less than one sequence of {config.sequence_length}"
        raise InvalidInput(field="val_tokens", reason=reason)


def _check_rates(config: ProxyConfig) -> None:
    if not 0 < config.peak_lr <= MOST_LR:
        raise InvalidInput(field="peak_lr", reason=f"{config.peak_lr:g} must lie in (0, {MOST_LR:g}]")
    if not 0 <= config.weight_decay <= HIGHEST_WEIGHT_DECAY:
        reason = f"{config.weight_decay:g} must lie in 0..{HIGHEST_WEIGHT_DECAY:g}"
        raise InvalidInput(field="weight_decay", reason=reason)
    if config.clip_norm is not None and config.clip_norm <= 0:
        raise InvalidInput(field="clip_norm", reason="must be above 0, or null for no clipping")
    kinds = optimizer_row(config.optimizer).decay_kinds
    if config.weight_decay and config.weight_decay_kind not in kinds:
        allowed = ", ".join(kinds) or "none: set weight_decay to 0"
        reason = f"{config.optimizer} has no decay of the kind {config.weight_decay_kind!r}; it has {allowed}"
        raise InvalidInput(field="weight_decay_kind", reason=reason)


def _check_width_rules(config: ProxyConfig) -> None:
    """Refuse mup where no rule is published: of an optimiser's rates, or of its decay."""
    if config.parametrization == "standard":
        return
    powers = optimizer_row(config.optimizer).mup
    if powers is None:
        reason = (
            f"how the rates of {config.optimizer} go with the width is not published; train it as standard"
        )
        raise InvalidInput(field="parametrization", reason=reason)
    if not (config.weight_decay and config.scale_weight_decay) or config.width == config.base_width:
        return
    if powers.decay is None or config.weight_decay_kind == "l2":
        reason = (
            f"how a decay of the kind {config.weight_decay_kind!r} goes with the width is not published for "
            f"{config.optimizer}: set scale_weight_decay to false, or weight_decay to 0"
        )
        raise InvalidInput(field="scale_weight_decay", reason=reason)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
