"""A proxy that trains in a fraction of a second, and data for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from isoloss.proxies import ProxyConfig, TokenData

WORDS = np.frombuffer(
    b"".join(b"def f%d(x): return x + %d\n" % (k % 17, k % 5) for k in range(400)), np.uint8
)


def small_data() -> TokenData:
    return TokenData("words", WORDS, 256)


def small_config(**changed: Any) -> ProxyConfig:
    """A model of 32 by 1 that takes twelve steps."""
    given: dict[str, Any] = {
        "width": 32,
        "depth": 1,
        "head_width": 16,
        "peak_lr": 1e-2,
        "batch_tokens": 128,
        "n_tokens": 12 * 128,
        "sequence_length": 32,
        "val_tokens": 64,
        "base_width": 32,
    }
    return ProxyConfig.of(given | changed)
