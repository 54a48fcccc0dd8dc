"""Final loss over training compute: a power law with a floor."""

from __future__ import annotations

from collections.abc import Mapping

from isoloss.arrays import FloatArray
from isoloss.laws.law import Derived, Parameter
from isoloss.laws.power_sum import PowerSum, Term, coefficient, floor


class PowerLawCompute(PowerSum):
    """L(C) = E + coefficient C^exponent, the exponent below 0.

    C in floating-point operations of training, 6 N D where runs do not state it; losses in nats per token. It
    holds along one way of growing size and data together, such as the best of each compute: runs that grow them
    otherwise lie above it. Source: Kaplan et al. 2020, arXiv 2001.08361, equation 1.3, with the floor of Henighan
    et al. 2020, arXiv 2010.14701, equation 1.1.
    """

    name = "power_law_compute"
    title = "Loss over compute, with a floor"
    formula = "L(C) = E + coefficient * C^exponent"
    reference = (
        "Henighan et al. 2020, 'Scaling Laws for Autoregressive Generative Modeling', arXiv:2010.14701"
    )
    quantity = "loss"
    unit = "nats/token"
    columns = ("compute_flops",)
    terms = (
        Term(
            "coefficient",
            "exponent",
            "took the same compute",
            "amounts of compute",
            signed=True,
        ),
    )
    remedy = "add runs with a wider range of compute"
    requires = ("config.compute_flops or n_params and n_tokens", "summary.final_loss")
    parameters = (
        floor(),
        coefficient("coefficient", "c", "nats/token / FLOP^exponent", "what compute removes"),
        Parameter("exponent", "m", "1", -3.0, -0.01, "how fast the loss falls with the compute C"),
    )

    def variables(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        return [columns["compute_flops"]]

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return the training compute in FLOPs."""
        return columns["compute_flops"]

    def derived(self, theta: FloatArray) -> Derived:  # noqa: ARG002 (nothing follows that is not a parameter)
        return {}
