"""The best peak learning rate over the batch: linear, square root, and forms that saturate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np

from isoloss.arrays import FloatArray, namespace
from isoloss.laws.law import Derived, Parameter, Priors
from isoloss.laws.optimal_lr import LEARNING_RATE, OptimalLR
from isoloss.laws.power_laws import LogColumns, blank_jacobian, log_columns, n_distinct, on_one_line
from isoloss.laws.power_product import USUAL, slope
from isoloss.laws.staged_law import StagedLaw
from isoloss.laws.sweep_law import Axis

REFERENCE_PARAMS, REFERENCE_TOKENS = 1e9, 2e10
"""The training whose learning rate eta_inf is, where runs of several sizes or data were fitted."""

EXPONENTS = {"linear": 1.0, "sgd": 1.0, "sqrt": 0.5, "adam": 0.5, "supported": 0.5}
"""The power of the batch that each form has where the batch is small."""

SATURATING = ("adam", "sgd")
FORMS = ("adam", "sgd", "sqrt", "linear")

SIZE, DATA, BATCH = range(3)


def log_of_batch(form: str, log_batch: FloatArray, log_b0: FloatArray) -> FloatArray:
    """Return how a form goes with the batch, in logarithms: p ln(B/(B + B0)), or p ln B where it does not saturate.

    `log_batch` and `log_b0` broadcast, logarithms of tokens. Source: Granziol et al. 2020, arXiv 2006.09092 for
    small batches; the saturating forms are our own (laws.md 5).
    """
    if form not in ("supported", *SATURATING):
        return EXPONENTS[form] * (log_batch + 0.0 * log_b0)
    xp: Any = namespace(log_batch)
    # softplus without overflow: ln(1 + B0/B)
    away = log_b0 - log_batch
    return -EXPONENTS[form] * (xp.maximum(away, 0.0 * away) + xp.log1p(xp.exp(-xp.abs(away))))


class LearningRateSweeps(OptimalLR):
    """Sweeps of the learning rate at one size, data and batch each."""

    axes: ClassVar[tuple[Axis, ...]] = (LEARNING_RATE,)  # type: ignore[assignment]
    cell: ClassVar[tuple[str, ...]] = ("n_params", "n_tokens", "batch_tokens")  # type: ignore[assignment]


class LROfBatch(StagedLaw):
    """eta(B) = eta_inf sqrt(B / (B + B0)) at one size and data; eta_inf goes with powers of both.

    B and B0 in tokens, eta the best peak learning rate. First every sweep of the learning rate gives its own
    optimum, then eta_inf of every size and data and one B0 are fitted to these, then powers to eta_inf: it is
    stated for a billion parameters and 20 billion tokens, or for the one size and data that the runs have. B0 is
    where the learning rate stops to grow with the batch; it is near a critical batch only where the same
    noise limits both. Sources: Granziol et al. 2020, arXiv 2006.09092 (small batches: linear under SGD, square
    root under Adam); the saturating forms are our own (laws.md 5).
    """

    name = "lr_of_batch"
    title = "Best peak learning rate over the batch"
    formula = (
        "eta(N, D, B) = eta_inf * (N/1e9)^exponent_n_params * (D/2e10)^exponent_n_tokens * sqrt(B / (B + B0))"
    )
    reference = (
        "Granziol et al. 2020, 'Learning Rates as a Function of Batch Size', arXiv:2006.09092; own forms"
    )
    quantity = "peak_lr"
    unit = "1"
    columns = ("n_params", "n_tokens", "batch_tokens")
    sweeps = LearningRateSweeps()
    cut_by = "batch_tokens"
    remedy = "sweep the learning rate at more batches, small and large, of every size and data"
    requires = (
        "config.n_params", "config.n_tokens", "config.batch_tokens", "config.peak_lr", "summary.final_loss",
    )  # fmt: skip
    optional = ("exponent_n_params", "exponent_n_tokens")
    conventions: ClassVar = {
        "supported": "adam, unless sgd predicts batches that were left out better than by chance",
        "adam": "eta_inf * sqrt(B / (B + B0)): the square root, saturating",
        "sgd": "eta_inf * B / (B + B0): linear, saturating",
        "sqrt": "coefficient * sqrt(B), without end",
        "linear": "coefficient * B, without end",
    }

    @property
    def form(self) -> str:
        """The form as which it is evaluated."""
        return self.convention or "supported"

    @property
    def saturates(self) -> bool:
        return self.form in ("supported", *SATURATING)

    @property
    def parameters(self) -> tuple[Parameter, ...]:  # type: ignore[override]
        slopes = (
            slope("exponent_n_params", "a", "how the best learning rate changes with the model size N"),
            slope("exponent_n_tokens", "b", "how it changes with the training tokens D"),
        )
        if not self.saturates:
            unit, what = f"1 / tokens^{EXPONENTS[self.form]:g}", "the learning rate of a batch of one token"
            return (Parameter("coefficient", "c", unit, 1e-300, np.inf, what, "log", True), *slopes)
        highest = "the learning rate of very large batches"
        where = "the batch from which on the learning rate hardly grows"
        return (
            Parameter("eta_inf", "\\eta_\\infty", "1", 1e-300, np.inf, highest, "log", True),
            *slopes,
            Parameter("B0", "B_0", "tokens", 1e-300, np.inf, where, "log"),
        )

    def prepare(self, columns: Mapping[str, FloatArray]) -> LogColumns:
        size, data = columns["n_params"] / REFERENCE_PARAMS, columns["n_tokens"] / REFERENCE_TOKENS
        return log_columns(size, data, columns["batch_tokens"])

    def basis(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        xp: Any = namespace(theta)
        logs = features.logs
        total = theta[:, 1:3] @ logs[:BATCH] + self._of_batch(theta, logs[BATCH])
        return xp.exp(total)[..., None]

    def predict(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        predicted: FloatArray = theta[:, :1] * self.basis(theta, features)[..., 0]
        return predicted

    def jacobian(self, theta: FloatArray, features: LogColumns) -> tuple[FloatArray, FloatArray]:
        predicted = self.predict(theta, features)
        out: Any = blank_jacobian(theta, features.n_points)
        out[:, 0] = predicted / theta[:, :1]
        out[:, 1:3] = predicted[:, None, :] * features.logs[None, :BATCH]
        if self.saturates:
            batch = namespace(theta).exp(features.logs[BATCH])
            out[:, 3] = -EXPONENTS[self.form] * predicted / (batch + theta[:, 3:])
        return predicted, out.mT

    def _of_batch(self, theta: FloatArray, log_batch: FloatArray) -> FloatArray:
        xp: Any = namespace(theta)
        log_b0 = xp.log(theta[:, 3:]) if self.saturates else 0.0 * theta[:, :1]
        return log_of_batch(self.form, log_batch[None], log_b0)

    def grid(self, features: LogColumns, count: int) -> FloatArray:
        a_side = max(4, int(np.ceil(count ** (1 / 3))))
        exponents = np.linspace(-USUAL, USUAL, a_side)
        batch = features.logs[BATCH]
        axes = [exponents, exponents]
        if self.saturates:
            axes.append(np.exp(np.linspace(batch.min() - 2.0, batch.max() + 2.0, a_side)))
        spread = [one.ravel() for one in np.meshgrid(*axes, indexing="ij")]
        return np.stack([np.zeros(spread[0].size), *spread], axis=1)

    def held(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, float]:  # noqa: ARG002
        """Hold the exponent of what does not vary at nothing: it is part of eta_inf."""
        return dict.fromkeys(_alone(features), 0.0)

    def undetermined(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, str]:
        missing = {name: f"there is one of {what} alone" for name, what in _alone(features).items()}
        sites = LogColumns(features.n_points, features.n_terms, features.logs[:BATCH])
        if not missing and on_one_line(sites):
            together = "size and data grow together in all sweeps: what each does cannot be told apart"
            missing = dict.fromkeys([one.name for one in self.parameters[:3]], together)
        if self.saturates and n_distinct(features)[BATCH] == 1:
            missing |= dict.fromkeys((self.parameters[0].name, "B0"), "there is one batch alone")
        return {name: why for name, why in missing.items() if name not in fixed}

    def priors(self, features: LogColumns) -> Priors:  # noqa: ARG002
        return Priors()

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return the batch."""
        return columns["batch_tokens"]

    def derived(self, theta: FloatArray) -> Derived:  # noqa: ARG002 (nothing follows that is not a parameter)
        return {}


def _alone(features: LogColumns) -> dict[str, str]:
    """Return the exponents of what all runs have one of, with what that is."""
    size, data, _ = n_distinct(features)
    found = {
        "exponent_n_params": (size, "the model sizes"),
        "exponent_n_tokens": (data, "the training tokens"),
    }
    return {name: what for name, (count, what) in found.items() if count == 1}
