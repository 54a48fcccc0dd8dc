"""Fits of laws to runs, and what they predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from isoloss.client import wire
from isoloss.client.documents import Fit, Job, Prediction
from isoloss.client.projects import project_path
from isoloss.client.transport import Transport
from isoloss.client.waits import wait_until_done

NUMERIC_PARTS = ("objective", "metrics", "holdout", "parameters", "groups", "derived", "diagnostics")


class Fits:
    """Fits of a project: `client.fits.create("pilot", "lr_annealing", all=True, wait=True)`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        project: str,
        law: str = "auto",
        *,
        run_ids: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        recipe: str | None = None,
        where: str | None = None,
        all: bool = False,
        options: Mapping[str, Any] | None = None,
        follow: bool = False,
        wait: bool = False,
        timeout: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Fit:
        """Fit a law to the runs that are named by exactly one of `run_ids`, `tags`, `recipe`, `where`, `all`.

        "auto" is the law of curves that predicts runs best from others. `options` are those of the API, as
        `isoloss.fitting.FitOptions` lists them: `target`, `fix`, `bounds`, `expr`, `bootstrap`, `level`,
        `holdout`, `seed`, ... With `follow` the fit is done again whenever runs of the project that have ended
        change. Returns at once with `status` "queued", or with `wait` when the fit
        has ended, as `wait` below does.

        >>> fit = client.fits.create("pilot", "lr_annealing", tags=["train"], wait=True,
        ...     options={"bootstrap": 500, "holdout": {"run_ids": ["wsd"]}})
        >>> fit["verdict"], fit["parameters"][0]["interval"]
        """
        choices = {"run_ids": run_ids, "tags": tags, "recipe": recipe, "where": where, "all": all or None}
        select = {key: value for key, value in choices.items() if value is not None}
        body: dict[str, Any] = {"law": law, "select": select, "options": dict(options or {})}
        if follow:
            body["follow"] = True
        fit = cast(Fit, self._transport.post(project_path(project, "fits"), body, creates=True))
        if not wait:
            return fit
        return self.wait(project, fit["id"], timeout=timeout, on_progress=on_progress)

    def get(self, project: str, fit_id: str) -> Fit:
        """One fit as it stands; raises NotFound."""
        return _fit(self._transport.get(project_path(project, "fits", fit_id)))

    def list(self, project: str, *, where: str | None = None, sort: str | None = None) -> Iterator[Fit]:
        """The fits of a project, fetched page by page."""
        items = self._transport.items(project_path(project, "fits"), {"where": where, "sort": sort})
        return (_fit(item) for item in items)

    def unfollow(self, project: str, fit_id: str) -> Fit:
        """Make a fit that follows its runs keep its result from now on; raises NotFound."""
        return _fit(self._transport.post(project_path(project, "fits", fit_id, "unfollow")))

    def wait(
        self,
        project: str,
        fit_id: str,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Fit:
        """The fit once it has succeeded; `on_progress(job)` sees each state of its job.

        A fit whose data do not determine the law succeeds too: look at its `verdict`.
        Raises JobFailed, JobCancelled or WaitTimedOut.
        """
        job_id = self.get(project, fit_id)["job_id"]
        wait_until_done(lambda: self._job(job_id), ("Fit", fit_id), timeout, on_progress)
        return self.get(project, fit_id)

    def predict(
        self,
        project: str,
        fit_id: str,
        *,
        schedule: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        steps: Sequence[int] | NDArray[np.integer[Any]] | None = None,
        level: float | None = None,
        interval: Literal["mean", "new_run"] | None = None,
    ) -> Prediction:
        """What the fitted law predicts for a schedule or configuration that it has not seen.

        `interval="mean"` covers the law's own curve, `"new_run"` the loss that one more run would show.
        Raises Conflict where the fit has not ended or its data do not determine the law.

        >>> wsd = {"kind": "wsd", "total_steps": 5000, "decay_start": 4000, "peak_lr": 3e-4}
        >>> prediction = client.fits.predict("pilot", fit["id"], schedule=wsd, steps=[1000, 5000])
        >>> prediction["value"], prediction["lower"], prediction["upper"]
        """
        fields = {
            "schedule": schedule,
            "config": config,
            "steps": steps,
            "level": level,
            "interval": interval,
        }
        body = {key: value for key, value in fields.items() if value is not None}
        return _prediction(self._transport.post(project_path(project, "fits", fit_id, "predictions"), body))

    def _job(self, job_id: str) -> Job:
        return cast(Job, self._transport.get(f"/v1/jobs/{job_id}"))


def _fit(document: dict[str, Any]) -> Fit:
    for part in NUMERIC_PARTS:
        if part in document:
            document[part] = wire.numbers(document[part])
    return cast(Fit, document)


def _prediction(document: dict[str, Any]) -> Prediction:
    for part in ("value", "lower", "upper"):
        document[part] = wire.array(document[part])
    if document.get("steps") is not None:
        document["steps"] = np.array(document["steps"], dtype=np.int64)
    return cast(Prediction, document)
