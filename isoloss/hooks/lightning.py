"""Lightning's Trainer: `IsolossLogger` records what it logs, `IsolossCallback` says what it trains."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from isoloss.client.documents import Forecast
from isoloss.client.init_arguments import chosen_identity, chosen_mode
from isoloss.client.messages import LOGGER
from isoloss.client.recorder import Recorder, init
from isoloss.hooks.plain import Watch

LOSSES = ("loss", "train_loss", "train/loss", "loss_step", "train_loss_step", "train/loss_step")
VALIDATION_LOSSES = (
    "val_loss",
    "val/loss",
    "valid_loss",
    "validation_loss",
    "val_loss_epoch",
    "val/loss_epoch",
)
COLUMNS = {**dict.fromkeys(LOSSES, "loss"), **dict.fromkeys(VALIDATION_LOSSES, "val_loss")}

STATUSES = {"success": None, "failed": "failed", "finished": "preempted"}
"""How a run ends, by what Lightning tells its loggers; `finished` is its word for a job that is queued again."""


class IsolossLogger(Logger):
    """Records what a LightningModule logs.

    >>> trainer = Trainer(logger=IsolossLogger("pilots"), callbacks=[IsolossCallback()])

    `project` and the options are those of `isoloss.init`. `columns` says which of the module's names is which of
    Isoloss's, as in `{"nll": "loss"}`; `train_loss`, `val_loss` and their like are known. Lightning numbers its
    steps from 0: a metric of step k is recorded after k + 1 updates.

    Raises InvalidInput for a project or run id that is none.
    """

    def __init__(
        self,
        project: str | None = None,
        *,
        run_id: str | None = None,
        columns: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        mode: Any = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._identity = chosen_identity(project, run_id, chosen_mode(mode))
        self._options = {**options, "mode": mode}
        self._config = dict(config or {})
        self._columns = {**COLUMNS, **(columns or {})}
        self._run: Recorder | None = None
        self._is_over = False

    @property
    def name(self) -> str:
        """The project."""
        return self._identity.project

    @property
    def version(self) -> str:
        """The run id."""
        return self._identity.run_id

    @property
    def experiment(self) -> Recorder | None:
        """The run, once the training has begun."""
        return self._run

    def begin(self, run_id: str | None = None, step: int = 0) -> Recorder:
        """Begin the run, or go on from a step with one that was begun before."""
        self._is_over = False
        if run_id is not None:
            self._identity = chosen_identity(self._identity.project, run_id, "online")
        options = {**self._options, "resume_step": step} if step else self._options
        self._run = init(self.name, run_id=self.version, config=self._config, **options)
        return self._run

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record metrics of a step."""
        row = {self._columns.get(name, name): value for name, value in metrics.items() if _is_kept(name)}
        if not row or self._is_over:
            return
        run = self._run or self.begin()
        run.log(row, step=None if step is None else step + 1)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Add the module's hyperparameters to the configuration, under `hyperparameters`."""
        given = vars(params) if isinstance(params, Namespace) else dict(params or {})
        if self._run is None:
            self._config = {**self._config, "hyperparameters": given}
        else:
            self._run.update(config={"hyperparameters": given})

    def finalize(self, status: str) -> None:
        """End the run; what is logged after that, as by `trainer.test`, is left out."""
        if self._run is not None:
            self._run.finish(STATUSES.get(status))  # type: ignore[arg-type]
        self._run, self._is_over = None, self._run is not None or self._is_over


class IsolossCallback(Callback):
    """Declares what a Lightning Trainer trains to the run of its IsolossLogger, and resumes that from checkpoints.

    It reads the first optimiser, its scheduler and the module, records the learning rate of every update, puts
    all on disk before a checkpoint is saved, and keeps the run's id in the checkpoint. With `noise_scale` it logs
    norms of the gradient at two batches, as `isoloss.watch` does.
    """

    def __init__(self, *, n_params_active: int | None = None, noise_scale: bool = False) -> None:
        self._n_params_active = n_params_active
        self._noise_scale = noise_scale
        self._logger: IsolossLogger | None = None
        self._saved: str | None = None
        self._watch: Watch | None = None
        self._shown: Forecast | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin the run with what there is to read."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, IsolossLogger)]
        if not loggers or not trainer.optimizers:
            LOGGER.warning(
                "IsolossCallback has nothing to declare: the trainer has no IsolossLogger, or no optimiser"
            )
            return
        self._logger, step = loggers[0], trainer.global_step
        run = self._logger.begin(self._saved if step else None, step)
        total_steps = trainer.estimated_stepping_batches
        self._watch = Watch(
            run, trainer.optimizers[0], int(total_steps) if 0 < total_steps < math.inf else None
        )
        scheduler, every = _scheduler(trainer)
        self._watch.begin(scheduler, pl_module, every, step, self._n_params_active, _table(pl_module))
        if self._noise_scale:
            self._watch.measure_noise()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Put the forecast of the final loss into the progress bar, where the logger has `show_forecast`."""
        run = None if self._logger is None else self._logger.experiment
        forecast = None if run is None else run.forecast
        if forecast is self._shown or forecast is None or forecast["value"] is None:
            return
        self._shown = forecast  # the bar keeps it, and logging costs more than many a step
        self.log("forecast", forecast["value"], prog_bar=True, logger=False)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Put all on disk before the checkpoint is."""
        if self._logger is not None and self._logger.experiment is not None:
            self._logger.experiment.flush(on_disk=True)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._leave()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._leave()

    def state_dict(self) -> dict[str, Any]:
        """Which run a checkpoint belongs to."""
        return {} if self._logger is None else {"run_id": self._logger.version}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict.get("run_id")

    def _leave(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _is_kept(name: str) -> bool:
    """Whether a metric is one of an optimiser's step: epochs are none, nor are the batches of a validation."""
    is_of_a_batch = name.startswith("val") and name.endswith("_step")
    return name != "epoch" and not name.startswith("lr-") and not is_of_a_batch


def _scheduler(trainer: Any) -> tuple[Any, int]:
    """The first optimiser's scheduler and the updates between its steps; None where no whole number is between."""
    found = [each for each in trainer.lr_scheduler_configs if not each.reduce_on_plateau]
    if not found:
        return None, 1
    config, accumulated = found[0], trainer.accumulate_grad_batches
    if config.interval == "epoch":
        return config.scheduler, math.ceil(trainer.num_training_batches / accumulated) * config.frequency
    whole = accumulated == 1 or config.frequency == 1
    return (config.scheduler, config.frequency) if whole else (None, 1)


def _table(module: Any) -> Any:
    """The largest embedding table: whatever a training step calls, that is called with its tokens."""
    from torch import nn

    tables = [each for each in module.modules() if isinstance(each, nn.Embedding)]
    return max(tables, key=lambda table: table.num_embeddings, default=None)
