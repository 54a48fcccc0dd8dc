"""Tokens of a Markov chain: little to learn, quickly learnt."""

from __future__ import annotations

import numpy as np

from isoloss.proxies.data import TokenData

VOCABULARY = 16


def chain_tokens(n_tokens: int = 40_000) -> TokenData:
    """Each of 16 tokens is followed by one of three, mostly by the first."""
    drawn = np.random.default_rng(0)
    after = np.stack([drawn.permutation(VOCABULARY)[:3] for _ in range(VOCABULARY)])
    which = drawn.choice(3, size=n_tokens, p=[0.7, 0.2, 0.1])
    tokens = np.zeros(n_tokens, dtype=np.uint16)
    for k in range(1, n_tokens):
        tokens[k] = after[tokens[k - 1], which[k]]
    return TokenData("chain", tokens, VOCABULARY)
