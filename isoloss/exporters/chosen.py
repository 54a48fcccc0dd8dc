"""Which runs are meant, with those that they branch off, and their own points read stretch by stretch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from isoloss.errors import InvalidInput, NotFound

FIRST_WIDTH = 200_000
"""Steps that are asked for at first; the next stretches are as wide as makes about so many points."""

MOST_GROWTH = 8
LARGEST_WIDTH = 2**53

Run = Mapping[str, Any]
Columns = dict[str, "np.ma.MaskedArray[Any, Any]"]


class RunsRoom(Protocol):
    def get(self, project: str, run_id: str) -> Any: ...
    def list(self, project: str, *, where: str | None = None, sort: str | None = None) -> Iterable[Any]: ...


class PointsRoom(Protocol):
    def read(
        self, project: str, run_id: str, *, from_step: int | None = None, to_step: int | None = None
    ) -> Mapping[str, Any]: ...


class FitsRoom(Protocol):
    def get(self, project: str, fit_id: str) -> Any: ...


class Service(Protocol):
    """What an export asks of `isoloss.Client`."""

    @property
    def runs(self) -> RunsRoom: ...
    @property
    def points(self) -> PointsRoom: ...
    @property
    def fits(self) -> FitsRoom: ...


@dataclass(frozen=True)
class Selection:
    """Runs, named in one way at most as a fit selects them; all of the project where nothing is said.

    `tags` means the runs that have all of them, `where` those for which it holds.
    """

    run_ids: Sequence[str] = ()
    tags: Sequence[str] = ()
    recipe: str | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        for name in ("run_ids", "tags"):
            listed = getattr(self, name)
            texts = isinstance(listed, Sequence) and all(isinstance(one, str) for one in listed)
            if isinstance(listed, str) or not texts:
                raise InvalidInput(field=name, reason="must be a list of texts")
        if len(self.said()) > 1:
            raise InvalidInput(field="runs", reason=f"name them by one of {', '.join(self.said())} alone")

    @classmethod
    def of_fit(cls, select: Mapping[str, Any]) -> Selection:
        """The selection of a fit."""
        return cls(**{name: value for name, value in select.items() if name != "all"})

    def said(self) -> dict[str, Any]:
        """What is named, by the names of the API."""
        fields = {"run_ids": list(self.run_ids), "tags": list(self.tags), "recipe": self.recipe}
        return {name: value for name, value in {**fields, "where": self.where}.items() if value}

    def runs(self, service: Service, project: str, *, sort: str | None = None) -> list[Run]:
        """The runs that are meant. Raises NotFound, and InvalidInput where there is none."""
        if self.run_ids and sort is None:
            return [service.runs.get(project, run_id) for run_id in dict.fromkeys(self.run_ids)]
        found: list[Run] = list(service.runs.list(project, where=self._where(), sort=sort))
        if self.run_ids:
            found = _named(found, self.run_ids)
        if not found:
            told = (
                f"no run of {project} is of this selection"
                if self.said()
                else f"project {project} has no run"
            )
            raise InvalidInput(field="runs", reason=told)
        return found

    def _where(self) -> str | None:
        if self.tags:
            return " and ".join(f"tags = {json.dumps(tag)}" for tag in self.tags)
        return f"recipe = {json.dumps(self.recipe)}" if self.recipe else self.where


def _named(found: Sequence[Run], run_ids: Sequence[str]) -> list[Run]:
    missing = sorted(set(run_ids) - {run["run_id"] for run in found})
    if missing:
        raise NotFound(kind="run", name=missing[0])
    return [run for run in found if run["run_id"] in set(run_ids)]


@dataclass(frozen=True)
class Family:
    """Runs to write, parents before their branches; `ancestors` are those that none but a branch asks for."""

    runs: Sequence[Run]
    ancestors: tuple[str, ...] = ()


def with_ancestors(service: Service, project: str, chosen: Sequence[Run]) -> Family:
    """The runs with all that they branch off: without its parent a branch has no beginning."""
    known = {run["run_id"]: run for run in chosen}
    ancestors: list[str] = []
    waiting = list(chosen)
    while waiting:
        name = _parent(waiting.pop())
        if name is not None and name not in known:
            known[name] = service.runs.get(project, name)
            ancestors.append(name)
            waiting.append(known[name])
    ordered: dict[str, Run] = {}
    for run in known.values():
        line = [run]
        while (name := _parent(line[-1])) is not None and name not in ordered:
            line.append(known[name])
        ordered.update((one["run_id"], one) for one in reversed(line))
    return Family(list(ordered.values()), tuple(sorted(ancestors)))


def _parent(run: Run) -> str | None:
    said = run.get("parent")
    return None if said is None else str(said["run_id"])


@dataclass
class OwnPoints:
    """The points of a run without those of its parent, up to the last step that it was said to have.

    `names` are the columns to write, known once the first stretch has been read.
    """

    service: Service
    project: str
    run: Run
    names: tuple[str, ...] = ()
    _first: Columns | None = field(default=None, repr=False)
    _next_step: int = 0
    _width: int = FIRST_WIDTH

    def open(self) -> bool:
        """Read the first stretch; whether there is a point at all."""
        parent, last = self.run.get("parent"), self.run.get("last_step")
        if last is None:
            return False
        self._next_step = 0 if parent is None else int(parent["branch_step"]) + 1
        self._first = self._read()
        while self._first is not None and not len(self._first["step"]):
            self._first = self._read()
        if self._first is None:
            return False
        # Where this is all, a column that is empty is another's: of the parent, or of points that are gone.
        whole = self._next_step > last
        self.names = tuple(
            name for name, column in self._first.items() if name != "step" and (column.count() or not whole)
        )
        return True

    def stretches(self) -> Iterator[Columns]:
        """The points, in the order of their steps."""
        found, self._first = self._first, None
        while found is not None:
            if len(found["step"]):
                yield found
            found = self._read()

    def _read(self) -> Columns | None:
        """The next stretch, None behind the last one."""
        first, last = self._next_step, int(self.run["last_step"])
        if first > last:
            return None
        to_step = min(last, first + self._width - 1)
        found = self.service.points.read(self.project, self.run["run_id"], from_step=first, to_step=to_step)
        self._next_step = to_step + 1
        growth = min(MOST_GROWTH, FIRST_WIDTH / max(1, len(found["step"])))
        self._width = min(LARGEST_WIDTH, max(1, int((to_step - first + 1) * growth)))
        return dict(found)
