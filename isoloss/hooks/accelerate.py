"""Accelerate: `IsolossTracker` records what an Accelerator logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate.state import AcceleratorState
from accelerate.tracking import GeneralTracker

from isoloss.client.init_arguments import chosen_identity, chosen_mode
from isoloss.client.recorder import Recorder, init
from isoloss.hooks.plain import Watch, watch

PRECISIONS = {"bf16": "mixed_bfloat16", "fp16": "mixed_float16", "fp8": "mixed_float8"}


class IsolossTracker(GeneralTracker):
    """Records what an Accelerator logs, and the updates of what it prepared.

    `project` and the options are those of `isoloss.init`. The run begins with `watch`, or with what is logged
    first. Registered for checkpointing it keeps the run's id and step in the Accelerator's checkpoints.

    Raises InvalidInput for a project or run id that is none.

    >>> tracker = IsolossTracker("pilots")
    >>> accelerator = Accelerator(log_with=tracker)
    >>> accelerator.init_trackers("pilots")
    >>> tracker.watch(optimizer, scheduler, model=model, total_steps=1000)
    >>> accelerator.log({"loss": loss}, step=tracker.step)
    """

    name = "isoloss"
    requires_logging_directory = False
    main_process_only = False  # the recorder knows its rank

    def __init__(
        self,
        project: str | None = None,
        *,
        run_id: str | None = None,
        config: Mapping[str, Any] | None = None,
        mode: Any = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._identity = chosen_identity(project, run_id, chosen_mode(mode))
        self._options = {**options, "mode": mode}
        self._config = dict(config or {})
        self._resumed_at = 0
        self._run: Recorder | None = None
        self._watch: Watch | None = None

    @property
    def tracker(self) -> Recorder | None:
        """The run, once it has begun."""
        return self._run

    @property
    def step(self) -> int:
        """Updates that the watched optimiser has done, on every rank."""
        return self._resumed_at if self._watch is None else self._watch.step

    def watch(
        self,
        optimizer: Any,
        scheduler: Any = None,
        *,
        model: Any = None,
        total_steps: int | None = None,
        scheduler_every: int = 1,
        n_params_active: int | None = None,
        noise_scale: bool = False,
    ) -> None:
        """Declare what the prepared parts say of the run, as `isoloss.watch` does; after a checkpoint is loaded."""
        run = self._begun()
        self._watch = watch(
            run,
            optimizer,
            scheduler,
            model=model,
            total_steps=total_steps,
            scheduler_every=scheduler_every,
            steps_done=self._resumed_at,
            n_params_active=n_params_active,
            noise_scale=noise_scale,
        )
        precision = PRECISIONS.get(str(AcceleratorState().mixed_precision))
        if precision is not None and "precision" not in self._config:
            run.update(config={"precision": precision})

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Add what `init_trackers` was given to the configuration."""
        self._config = {**self._config, **values}
        if self._run is not None:
            self._run.update(config=values)

    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Record values at a step, by default the watched optimiser's; unwatched, each call says its step."""
        counted = None if self._watch is None else self._watch.step
        self._begun().log(values, step=counted if step is None else step)

    def finish(self) -> None:
        """End the run; `Accelerator.end_training` does it."""
        if self._watch is not None:
            self._watch.close()
        if self._run is not None:
            self._run.finish()

    def state_dict(self) -> dict[str, Any]:
        """Which run a checkpoint belongs to, and where; all that was logged is on disk before it is."""
        if self._run is not None:
            self._run.flush(on_disk=True)
        return {"run_id": self._identity.run_id, "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the run of a checkpoint."""
        self._identity = chosen_identity(self._identity.project, state["run_id"], "online")
        self._resumed_at = int(state["step"])

    def _begun(self) -> Recorder:
        if self._run is None:
            options: dict[str, Any] = {"config": self._config, **self._options}
            if self._resumed_at:
                options["resume_step"] = self._resumed_at
            self._run = init(self._identity.project, run_id=self._identity.run_id, **options)
        return self._run
