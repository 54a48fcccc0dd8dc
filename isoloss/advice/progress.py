"""How far advice is, that rests on several fits one after another."""

from __future__ import annotations

from isoloss.fitting.estimate import Progress


def part(progress: Progress | None, number: int, parts: int, law: str) -> Progress:
    """Return the progress of one fit as a share of all `parts`; what it says begins with its law."""

    def told(fraction: float, message: str) -> None:
        if progress is not None:
            progress((number + fraction) / parts, f"{law}: {message}")

    return told
