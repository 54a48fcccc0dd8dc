"""Whether so many runs look as if counted in another unit that those which are left deserve doubt too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from isoloss.fitting.quality import IN_BILLIONS, IN_SEQUENCES
from isoloss.fitting.result import Fit

FEWEST, SHARE = 2, 0.05
"""From so many runs on, and from this share of all, they are no slip of one row."""

DOUBTED = "those that are left may be wrong too"

SAID = {
    IN_SEQUENCES: "have a batch_tokens that looks as if given in sequences",
    IN_BILLIONS: "have counts that look as if given in billions",
}


def doubts(left_out: Sequence[Mapping[str, str]], n_runs: int) -> list[str]:
    """Return in words which units of so many runs deserve doubt, by why some were left out."""
    return list(_doubts(left_out, n_runs))


def _doubts(left_out: Sequence[Mapping[str, str]], n_runs: int) -> Iterator[str]:
    for phrase, said in SAID.items():
        count = sum(phrase in one["reason"] for one in left_out)
        if count >= FEWEST and count >= SHARE * n_runs:
            yield f"{count} of {n_runs} runs {said}: {DOUBTED}"


def stale(found: Fit, said: Sequence[str]) -> bool:
    """Return whether a fit that was made earlier names other doubts than these."""
    told = [reason for reason in found.reasons if reason.endswith(DOUBTED)]
    return bool(told) and told != list(said)


def doubted(found: Fit, said: Sequence[str]) -> Fit:
    """Return the fit with these doubts among its reasons, the first ones, and a verdict that is weak at most."""
    if not said or set(said) <= set(found.reasons):
        return found
    verdict = "weak" if found.verdict == "sound" else found.verdict
    return replace(found, verdict=verdict, reasons=[*said, *found.reasons])
