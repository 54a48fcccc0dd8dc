"""The largest eigenvalue of a loss's Hessian, by Lanczos on products of the Hessian with vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from isoloss.arrays import FloatArray

RESIDUAL = 1e-2
"""Of the eigenvector, relatively to the eigenvalue, whose own error is about the square of it."""

MOST_RESTARTS = 30


def top_eigenvalue(losses: Sequence[Callable[[], Tensor]], weights: Sequence[Tensor]) -> float | None:
    """Return the largest eigenvalue, not the largest in size, of the Hessian of the mean of some losses.

    Each loss is a scalar computed from `weights`; one is held in memory at a time, for two differentiations, in
    the one form of attention that torch can differentiate twice. Lanczos starts from the same vector every time.
    None where it does not converge, or a loss is not finite.
    """
    size = sum(weight.numel() for weight in weights)

    def product(vector: FloatArray) -> FloatArray:
        along = torch.as_tensor(vector.ravel(), dtype=weights[0].dtype, device=weights[0].device)
        total = torch.stack([_along(loss, weights, along) for loss in losses]).mean(0)
        return np.asarray(total.double().cpu().numpy(), dtype=np.float64)

    start = np.random.default_rng(0).standard_normal(size)
    if not np.isfinite(product(start)).all():
        return None
    hessian = LinearOperator((size, size), matvec=product, dtype=np.float64)
    settings = {"k": 1, "which": "LA", "v0": start, "tol": RESIDUAL, "maxiter": MOST_RESTARTS}
    try:
        (found,) = eigsh(hessian, **settings, return_eigenvectors=False)
    except ArpackNoConvergence:
        return None
    return float(found)


def _along(loss: Callable[[], Tensor], weights: Sequence[Tensor], along: Tensor) -> Tensor:
    """Return the Hessian of a loss times a vector (parameters,), flat."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        gradient = _flat(torch.autograd.grad(loss(), weights, create_graph=True))
        return _flat(torch.autograd.grad(gradient, weights, along, materialize_grads=True))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([one.flatten() for one in tensors])
