"""Final loss over training tokens: a power law with a floor."""

from __future__ import annotations

from collections.abc import Mapping

from isoloss.arrays import FloatArray
from isoloss.laws.law import Derived, Parameter
from isoloss.laws.power_sum import PowerSum, Term, coefficient, floor


class PowerLaw(PowerSum):
    """L(D) = E + coefficient D^exponent, the exponent below 0.

    D in training tokens, losses in nats per token; for runs of one model size. Source: Kaplan et al. 2020,
    arXiv 2001.08361, equation 1.2, with the floor of Henighan et al. 2020, arXiv 2010.14701, equation 1.1.
    """

    name = "power_law"
    title = "Loss over data, with a floor"
    formula = "L(D) = E + coefficient * D^exponent"
    reference = (
        "Henighan et al. 2020, 'Scaling Laws for Autoregressive Generative Modeling', arXiv:2010.14701"
    )
    quantity = "loss"
    unit = "nats/token"
    columns = ("n_tokens",)
    terms = (
        Term(
            "coefficient",
            "exponent",
            "trained on equally many tokens",
            "numbers of tokens",
            signed=True,
        ),
    )
    remedy = "add runs with a wider range of training tokens"
    requires = ("config.n_tokens", "summary.final_loss")
    parameters = (
        floor(),
        coefficient("coefficient", "c", "nats/token / tokens^exponent", "what data removes"),
        Parameter("exponent", "m", "1", -3.0, -0.01, "how fast the loss falls with the training tokens D"),
    )

    def variables(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        return [columns["n_tokens"]]

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return the training tokens."""
        return columns["n_tokens"]

    def derived(self, theta: FloatArray) -> Derived:  # noqa: ARG002 (nothing follows that is not a parameter)
        return {}
