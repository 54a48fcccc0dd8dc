"""Recommendations for a run that has not been trained, and Pareto fronts of those that reach a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar, cast

from isoloss.client import wire
from isoloss.client.documents import Job, ParetoFront, Recommendation
from isoloss.client.projects import project_path
from isoloss.client.transport import Transport
from isoloss.client.waits import wait_until_done

Document = TypeVar("Document", Recommendation, ParetoFront)


class Advice(Generic[Document]):
    """What recommendations and fronts have in common; `noun` is their place in the API."""

    noun: ClassVar[str]
    name: ClassVar[str]

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, project: str, advice_id: str) -> Document:
        """One as it stands; raises NotFound."""
        return self._read(self._transport.get(project_path(project, self.noun, advice_id)))

    def list(self, project: str, *, where: str | None = None, sort: str | None = None) -> Iterator[Document]:
        """Those of a project, fetched page by page."""
        items = self._transport.items(project_path(project, self.noun), {"where": where, "sort": sort})
        return (self._read(item) for item in items)

    def wait(
        self,
        project: str,
        advice_id: str,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Document:
        """The one of this id once it has succeeded; `on_progress(job)` sees each state of its job.

        Raises JobFailed, JobCancelled or WaitTimedOut.
        """
        job_id = self.get(project, advice_id)["job_id"]
        wait_until_done(lambda: self._job(job_id), (self.name, advice_id), timeout, on_progress)
        return self.get(project, advice_id)

    def _create(
        self,
        project: str,
        question: Mapping[str, Any],
        select: Mapping[str, Any] | None,
        wait: bool,
        timeout: float | None,
        on_progress: Callable[[Job], None] | None,
    ) -> Document:
        body = {**question, **({} if select is None else {"select": dict(select)})}
        queued = self._transport.post(project_path(project, self.noun), body, creates=True)
        if not wait:
            return cast(Document, queued)
        return self.wait(project, queued["id"], timeout=timeout, on_progress=on_progress)

    def _read(self, document: Any) -> Document:
        return cast(Document, wire.numbers(document))

    def _job(self, job_id: str) -> Job:
        return cast(Job, self._transport.get(f"/v1/jobs/{job_id}"))


class Recommendations(Advice[Recommendation]):
    """Recommendations of a project: `client.recommendations.create("pilot", n_params=7e9, n_tokens=1.4e11)`."""

    noun, name = "recommendations", "Recommendation"

    def create(
        self,
        project: str,
        *,
        n_params: float,
        n_tokens: float,
        constraints: Mapping[str, float] | None = None,
        priors: Sequence[str] = (),
        select: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        wait: bool = False,
        timeout: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Recommendation:
        """Ask how a run of this size and data is best set, as the project's finished runs say.

        `constraints` as in `isoloss.advice.Constraints`; `priors` names published laws that may enter where the
        runs say little (`isoloss.advice.PUBLISHED`); `select` {"run_ids" | "tags" | "recipe" | "where" | "all"}
        chooses the runs, all where left out; `options` are `target`, `bootstrap`, `level`, `seed` and
        `n_params_kind`. Returns at once with `status` "queued", or with `wait` when it has ended, as `wait` does.

        >>> told = client.recommendations.create("pilot", n_params=7e9, n_tokens=1.4e11, wait=True,
        ...     constraints={"devices": 64, "tokens_per_second": 2.5e6})
        >>> told["peak_lr"]["value"], told["peak_lr"]["interval"], told["cost"]["device_hours"]
        """
        question = {"n_params": n_params, "n_tokens": n_tokens, **_given(constraints, options)}
        if priors:
            question["priors"] = list(priors)
        return self._create(project, question, select, wait, timeout, on_progress)


class Fronts(Advice[ParetoFront]):
    """Pareto fronts of a project: `client.pareto.create("pilot", target_loss=2.1)`."""

    noun, name = "pareto", "Pareto front"

    def create(
        self,
        project: str,
        *,
        target_loss: float,
        constraints: Mapping[str, float] | None = None,
        select: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        wait: bool = False,
        timeout: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
    ) -> ParetoFront:
        """Ask which sizes, data and batches reach a loss, of which none takes more steps and more operations.

        The other arguments are those of `Recommendations.create`. Where the runs do not determine the loss law or
        the critical batch, waiting raises JobFailed with the reason.

        >>> front = client.pareto.create("pilot", target_loss=2.1, wait=True)
        >>> [(one["n_params"], one["steps"], one["compute_flops"]) for one in front["choices"]]
        """
        question = {"target_loss": target_loss, **_given(constraints, options)}
        return self._create(project, question, select, wait, timeout, on_progress)


def _given(constraints: Mapping[str, float] | None, options: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"constraints": dict(constraints or {}), "options": dict(options or {})}
