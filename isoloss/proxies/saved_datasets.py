"""Hugging Face data sets on disk, as `Dataset.save_to_disk` writes them: Arrow streams with a list of their names.

They are read with pyarrow alone: the library that writes them would bring a tree of dependencies for one reader.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.proxies.data import MOST_TEXT_BYTES, TokenData
from isoloss.proxies.shapes import BYTES

TOKENS, TEXT = "input_ids", "text"
"""Columns that are read: lists of tokens, or else texts, as bytes."""

TRAIN = "train"

MOST_VOCABULARY = 2**24
"""Far more than any tokenizer has: a larger number is no token."""


def read_saved_dataset(path: Path) -> TokenData:
    """Return the tokens of a data set, or of the split `train` of a dictionary of them.

    The column `input_ids` holds lists of tokens, else `text` texts that are read as bytes. The validation split is
    taken of these, as of all data. Raises InvalidInput for other columns, and where pyarrow is not installed.
    """
    folder = _split_of(path)
    files = _files_of(folder)
    column = _column(folder, files)
    if column.name == TEXT:
        text = "\n".join(str(one) for one in column.values if one is not None).encode()
        if len(text) > MOST_TEXT_BYTES:
            reason = f"{path.name} has {len(text):,} bytes of text; tokenise it, or make a .bin of it"
            raise InvalidInput(field="data", reason=reason)
        return TokenData(path.name, np.frombuffer(text, dtype=np.uint8), BYTES)
    tokens = column.flat()
    if not tokens.size or tokens.min() < 0 or tokens.max() > MOST_VOCABULARY:
        reason = f"{path.name}: {TOKENS} must hold tokens from 0 to {MOST_VOCABULARY}, none missing"
        raise InvalidInput(field="data", reason=reason)
    return TokenData(path.name, tokens.astype(np.int32), int(tokens.max()) + 1)


class _Column:
    """One column over all files."""

    def __init__(self, name: str, chunks: list[Any]) -> None:
        self.name, self.chunks = name, chunks

    @property
    def values(self) -> list[Any]:
        return [value for chunk in self.chunks for value in chunk.to_pylist()]

    def flat(self) -> np.ndarray[Any, Any]:
        """Lists, one behind the other; nothing where a token is missing."""
        parts = [chunk.flatten() for chunk in self.chunks]
        if any(part.null_count for part in parts):
            return np.zeros(0, dtype=np.int32)
        return np.concatenate([np.zeros(0, dtype=np.int32), *(part.to_numpy() for part in parts)])


def _split_of(path: Path) -> Path:
    listing = path / "dataset_dict.json"
    if not listing.is_file():
        return path
    splits = _json(listing).get("splits")
    if not isinstance(splits, list) or not splits:
        raise InvalidInput(field="data", reason=f"{path.name} lists no splits")
    if TRAIN in splits:
        return path / TRAIN
    if len(splits) == 1:
        return path / str(splits[0])
    said = ", ".join(map(str, splits))
    raise InvalidInput(
        field="data", reason=f"{path.name} has no split {TRAIN!r}: name the folder of one of {said}"
    )


def _files_of(folder: Path) -> list[Path]:
    state = folder / "state.json"
    if not state.is_file():
        raise InvalidInput(field="data", reason=f"{folder.name} has no state.json: it was not saved whole")
    said = _json(state)
    if said.get("_indices_data_files"):
        reason = f"{folder.name} was saved as a selection: call flatten_indices() before save_to_disk()"
        raise InvalidInput(field="data", reason=reason)
    names = [str(one["filename"]) for one in said.get("_data_files") or []]
    files = [folder / Path(name).name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        what = f"{missing[0]} is missing" if missing else "it lists no files"
        raise InvalidInput(field="data", reason=f"{folder.name}: {what}")
    return files


def _column(folder: Path, files: list[Path]) -> _Column:
    try:
        arrow = importlib.import_module("pyarrow")
    except ImportError as error:
        reason = "a saved data set is read with pyarrow: pip install pyarrow"
        raise InvalidInput(field="data", reason=reason) from error
    chunks: list[Any] = []
    name = ""
    for file in files:
        try:
            with arrow.memory_map(str(file)) as source, arrow.ipc.open_stream(source) as stream:
                table = stream.read_all()
        except (arrow.ArrowInvalid, OSError) as error:
            raise InvalidInput(field="data", reason=f"{file.name} is no Arrow stream") from error
        name = _chosen(folder, table.schema)
        chunks += table.column(name).chunks
    return _Column(name, chunks)


def _chosen(folder: Path, schema: Any) -> str:
    """The column to read, if it is of the right type."""
    types = importlib.import_module("pyarrow").types
    kinds = {field.name: field.type for field in schema}
    lists = kinds.get(TOKENS)
    if lists is not None and types.is_nested(lists) and types.is_integer(lists.value_type):
        return TOKENS
    text = kinds.get(TEXT)
    if text is not None and (types.is_string(text) or types.is_large_string(text)):
        return TEXT
    reason = (
        f"{folder.name} has neither {TOKENS} (lists of integers) nor {TEXT} (texts), but {', '.join(kinds)}"
    )
    raise InvalidInput(field="data", reason=reason)


def _json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(field="data", reason=f"{path.name} is no JSON") from error
    if not isinstance(said, dict):
        raise InvalidInput(field="data", reason=f"{path.name} is no object")
    return said
