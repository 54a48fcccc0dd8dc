"""What proxies train on: tokens with a validation split, and batches that follow from seed and step alone."""

from __future__ import annotations

import hashlib
import json
import os
import sysconfig
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isoloss.errors import InvalidInput
from isoloss.notes import counted, first_line
from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.shapes import BYTES

Tokens = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

STANDARD_LIBRARY = "python-stdlib"

STRETCHES = 20
"""One stretch in so many is for validation."""

LONGEST_STRETCH = 65_536
"""Tokens of a stretch: long beside a sequence, and short beside what texts of one kind fill."""

MOST_TEXT_BYTES = 2**30
"""A text tree is held in memory; a larger one belongs in a `.bin`, which is mapped."""

WHOLLY_HASHED_BYTES = 2**26
HASHED_PIECES, HASHED_PIECE_BYTES = 64, 2**20

SKIPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "encodings", "pydoc_data", "__pycache__"}
)
"""Folders of the standard library that hold tests, tables and what others installed."""


@dataclass(frozen=True, eq=False)
class TokenData:
    """Tokens (n,) of a vocabulary, and which of them train.

    The last of every `STRETCHES` stretches is for validation, so that no token is in both parts; where training
    crosses one it goes on behind it. `notes` say what was left out.
    """

    name: str
    tokens: Tokens
    vocab_size: int
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.tokens.ndim != 1 or self.tokens.dtype.kind not in "ui":
            raise InvalidInput(field="data", reason=f"{self.name}: tokens must be a list of whole numbers")
        if self.tokens.size < STRETCHES:
            raise InvalidInput(
                field="data", reason=f"{self.name}: {self.tokens.size} tokens are too few to split"
            )

    @property
    def stretch(self) -> int:
        return min(LONGEST_STRETCH, self.tokens.size // STRETCHES)

    @property
    def n_validation(self) -> int:
        return self.tokens.size // (STRETCHES * self.stretch) * self.stretch

    @property
    def n_train(self) -> int:
        return int(self.tokens.size) - self.n_validation

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the tokens; of large ones that of their number and of pieces spread over them."""
        digest = hashlib.sha256(f"{self.tokens.dtype.str} {self.tokens.size} {self.vocab_size}".encode())
        size = self.tokens.itemsize
        if self.tokens.size * size <= WHOLLY_HASHED_BYTES:
            digest.update(np.ascontiguousarray(self.tokens).data)
        else:
            length = HASHED_PIECE_BYTES // size
            for start in np.linspace(0, self.tokens.size - length, HASHED_PIECES, dtype=np.int64):
                digest.update(np.ascontiguousarray(self.tokens[start : start + length]).data)
        return digest.hexdigest()

    def check(self, config: ProxyConfig) -> None:
        """Raise InvalidInput where the data cannot serve a configuration: less than a batch, or no validation."""
        if self.n_train <= config.batch_tokens + config.sequence_length:
            batch = config.batch_tokens
            reason = f"{self.name} has {self.n_train} tokens to train on, less than one batch of {batch}"
            raise InvalidInput(field="data", reason=reason)
        if self.n_validation <= config.sequence_length:
            reason = (
                f"{self.name} has {self.n_validation} tokens for validation, less than one sequence of "
                f"{config.sequence_length}"
            )
            raise InvalidInput(field="data", reason=reason)

    def batch(self, config: ProxyConfig, step: int) -> IntArray:
        """Return the windows (sequences, length + 1) of step 1, 2, ...: a function of seed and step alone.

        An epoch cuts the training tokens into windows from an offset of its own and visits each once, in an order
        of its own; the last token of a window is the first of the next.
        """
        length, n_sequences = config.sequence_length, config.batch_sequences
        n_windows = (self.n_train - length) // length
        first = (step - 1) * n_sequences
        epochs, places = np.divmod(np.arange(first, first + n_sequences), n_windows)
        starts = np.empty(n_sequences, dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            inside = epochs == epoch
            offset, order = _epoch(config.seed, epoch, n_windows, length)
            starts[inside] = offset + order[places[inside]].astype(np.int64) * length
        place = starts[:, None] + np.arange(length + 1)
        train = (STRETCHES - 1) * self.stretch
        behind = np.minimum(place // train, self.n_validation // self.stretch)
        return self._taken(place + behind * self.stretch)

    def validation(self, config: ProxyConfig) -> IntArray:
        """Return the windows (sequences, length + 1) of the validation loss, evenly spread and without overlap."""
        length = config.sequence_length
        n_windows = min(config.val_tokens, self.n_validation - 1) // length
        starts = np.linspace(0, self.n_validation - 1 - length, n_windows).astype(np.int64)
        place = starts[:, None] + np.arange(length + 1)
        behind = (place // self.stretch + 1) * (STRETCHES - 1) * self.stretch
        return self._taken(place + behind)

    def _taken(self, place: IntArray) -> IntArray:
        return self.tokens[place].astype(np.int64)


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, n_windows: int, length: int) -> tuple[int, npt.NDArray[np.uint32]]:
    """Return the offset and the order of the windows of an epoch."""
    random = np.random.default_rng((seed, epoch))
    order = np.arange(n_windows, dtype=np.uint32)
    random.shuffle(order)
    return int(random.integers(length)), order


def load_data(name: str | Path) -> TokenData:
    """Return the tokens of a name or a path.

    `python-stdlib` is the text of the installed standard library as bytes; a folder is a text tree as bytes, or a
    Hugging Face data set as `save_to_disk` writes it; a file `.bin` holds tokens as little-endian uint16, and its
    vocabulary stands in `NAME.json` beside it ({"vocab_size": ...}), else it is that of the largest token. Raises
    InvalidInput for what is missing, is no text, or is too small.
    """
    if not isinstance(name, str | Path):
        raise InvalidInput(field="data", reason=f"{name!r} is neither a name nor a path")
    try:
        return _loaded(name)
    except OSError as error:
        reason = f"{Path(name).name} cannot be read: {first_line(error, 200)}"
        raise InvalidInput(field="data", reason=reason) from error


def _loaded(name: str | Path) -> TokenData:
    if name == STANDARD_LIBRARY:
        return _standard_library()
    path = Path(name)
    if path.is_file() and path.suffix == ".bin":
        return _binary(path)
    if not path.is_dir():
        reason = (
            f"there is no {str(name)!r}: a folder of texts, a .bin, a data set on disk, or {STANDARD_LIBRARY}"
        )
        raise InvalidInput(field="data", reason=reason)
    if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
        from isoloss.proxies.saved_datasets import read_saved_dataset

        return read_saved_dataset(path)
    return _text_tree(path)


load = load_data


@lru_cache(maxsize=1)
def _standard_library() -> TokenData:
    """The sources of the standard library that this Python came with, in the order of their paths."""
    root = Path(sysconfig.get_path("stdlib"))
    chosen = [
        path for path in _files_below(root, SKIPPED_FOLDERS) if _is_library_text(path.relative_to(root))
    ]
    if not chosen:
        reason = f"the standard library in {root} has no source text: name a text tree instead"
        raise InvalidInput(field="data", reason=reason)
    return TokenData(STANDARD_LIBRARY, _joined([path.read_bytes() for path in chosen]), BYTES)


def _is_library_text(path: Path) -> bool:
    """Whether a path below the standard library is its language's text, and not of this machine."""
    return path.suffix == ".py" and not path.parts[0].startswith(("config-", "_sysconfigdata"))


def _text_tree(root: Path) -> TokenData:
    """The files below a folder in the order of their paths; what is no UTF-8 text is skipped and counted."""
    sizes = {path: path.stat().st_size for path in _files_below(root, frozenset())}
    if sum(sizes.values()) > MOST_TEXT_BYTES:
        reason = (
            f"{root.name} has {sum(sizes.values()):,} bytes; more than {MOST_TEXT_BYTES:,} belong in a .bin"
        )
        raise InvalidInput(field="data", reason=reason)
    filled = [path.read_bytes() for path, size in sizes.items() if size]
    texts = [content for content in filled if is_text(content)]
    n_skipped = len(filled) - len(texts)
    if not texts:
        found = f"{counted(n_skipped, 'file')} and none of it is" if n_skipped else "no file with"
        raise InvalidInput(field="data", reason=f"{root.name} has {found} UTF-8 text")
    skipped = f"{counted(n_skipped, 'file')} of {root.name} skipped: no UTF-8 text"
    return TokenData(root.name, _joined(texts), BYTES, (skipped,) if n_skipped else ())


def _files_below(root: Path, skipped: frozenset[str]) -> list[Path]:
    """The files below a folder in the order of their paths, without hidden ones and without skipped folders."""
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in skipped and not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def is_text(content: bytes) -> bool:
    """Whether bytes are UTF-8 without a NUL, which no text has."""
    if b"\0" in content:
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _joined(texts: list[bytes]) -> Tokens:
    return np.frombuffer(b"\n".join(texts), dtype=np.uint8)


def _binary(path: Path) -> TokenData:
    """Tokens that are mapped, not read."""
    size = path.stat().st_size
    if not size or size % 2:
        raise InvalidInput(field="data", reason=f"{path.name} has {size} bytes: no list of uint16 tokens")
    tokens = np.memmap(path, dtype="<u2", mode="r")
    return TokenData(path.name, tokens, _vocabulary(path, int(tokens.max())))


def _vocabulary(path: Path, largest: int) -> int:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return largest + 1
    try:
        said = json.loads(beside.read_text())["vocab_size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(field="data", reason=f"{beside.name} states no vocab_size") from error
    if isinstance(said, bool) or not isinstance(said, int) or said <= largest:
        reason = (
            f"{beside.name}: vocab_size {said!r} must be a whole number above the largest token, {largest}"
        )
        raise InvalidInput(field="data", reason=reason)
    return said
