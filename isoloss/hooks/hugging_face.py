"""Hugging Face's Trainer: `IsolossCallback` records what it trains."""

from __future__ import annotations

import atexit
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from isoloss.client.messages import LOGGER
from isoloss.client.recorder import Recorder, init
from isoloss.errors import InvalidInput
from isoloss.hooks.batches import BatchReader, world_size
from isoloss.hooks.noise import NoiseScale
from isoloss.hooks.statements import Statements

RUN_FILE = "isoloss-run.json"
"""In the trainer's output folder: which run a checkpoint in it belongs to."""

COLUMNS = {
    "loss": "loss",
    "eval_loss": "val_loss",
    "learning_rate": "lr",
    "grad_norm": "grad_norm",
    "num_input_tokens_seen": "tokens",
}
LEFT_OUT = ("epoch", "step", "total_flos", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


class IsolossCallback(TrainerCallback):
    """Records a training of Hugging Face's Trainer: `Trainer(..., callbacks=[IsolossCallback("pilots")])`.

    `project` and the options are those of `isoloss.init`. The run is declared when the training begins, with
    what the trainer, its optimiser, its scheduler and its model say; every log becomes a point at the optimiser's
    step. A training that resumes from a checkpoint in its output folder goes on with the same run; one that does
    not come to its end is failed. With `noise_scale` norms of the gradient at two batches are logged, as
    `isoloss.watch` does.

    Raises InvalidInput for an option that `isoloss.init` does not have.
    """

    def __init__(
        self,
        project: str | None = None,
        *,
        n_params_active: int | None = None,
        noise_scale: bool = False,
        **options: Any,
    ) -> None:
        unknown = options.keys() - inspect.signature(init).parameters.keys() | options.keys() & {
            "resume_step"
        }
        if unknown:
            raise InvalidInput(
                field=min(unknown), reason="is no option of isoloss.init that a trainer leaves open"
            )
        self._options = {"project": project, **options}
        self._n_params_active = n_params_active
        self._noise_scale = noise_scale
        self._noise: NoiseScale | None = None
        self._run: Recorder | None = None
        self._is_over = False
        self._reader: BatchReader | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Begin the run, or go on with the one whose checkpoint was loaded."""
        self._end(was_cut_short=True)
        self._is_over = False
        self._run = run = self._begun(Path(args.output_dir), state.global_step, args.run_name)
        atexit.register(self._end, was_cut_short=True)
        if not run.is_recording:
            return
        statements = self._statements = Statements(run)
        statements.attempt("the run's file", lambda: _write(Path(args.output_dir), run))
        statements.declare({"seed": args.seed, **_shape(parts.get("model"))})
        optimizer = statements.optimizer(parts["optimizer"])
        statements.model(parts["model"], self._n_params_active)
        statements.declare(_mixed_precision(args))
        if state.global_step == 0 and optimizer is not None:
            statements.schedule(parts["lr_scheduler"], state.max_steps, 1, optimizer)
        if state.global_step == 0 or self._noise_scale:
            self._reader = statements.attempt("the batch", lambda: _reader(args, parts["model"]))
        if self._noise_scale:
            self._noise = NoiseScale(run, statements, parts["optimizer"])

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Read the batch of the first updates; put all on disk before a checkpoint."""
        reader = self._reader
        if reader is not None and reader.step_ended():
            self._reader = None
            reader.close()
            self._declare_batch(args, state, reader)
        if self._noise is not None:
            self._noise.update_ended(state.global_step)
        self._flush_before_save(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        self._flush_before_save(control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if self._run is not None:  # whether it is the best, and saved, is found out later
            self._run.flush(on_disk=True)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **parts: Any
    ) -> None:
        """Record a log of the trainer at the optimiser's step."""
        run, metrics = self._run, _metrics(logs or {})
        if run is None or not metrics:
            return
        if self._is_over:
            self._log_late(run, metrics, state.global_step)
            return
        run.log(metrics, step=state.global_step)
        self._flush_before_save(control)

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        self._end()

    def _begun(self, folder: Path, step: int, name: str | None) -> Recorder:
        options = dict(self._options)
        if name and name != str(folder):
            options.setdefault("name", name)
        if step > 0:
            options["resume_step"] = step
            if not options.get("run_id"):
                options["run_id"] = _read(folder)
                if options["run_id"] is None:
                    LOGGER.warning("no run is named in %s: step %d goes on in a new one", folder, step)
        return init(**options)

    def _declare_batch(self, args: Any, state: Any, reader: BatchReader) -> None:
        run, statements = self._run, self._statements
        assert run is not None
        stated = run.stated.get("config", {})
        length = stated.get("sequence_length")
        if reader.batch is None and isinstance(length, int) and "batch_tokens" not in stated:
            sequences = args.train_batch_size * args.gradient_accumulation_steps * world_size()
            statements.declare({"batch_tokens": sequences * length})
        statements.attempt("the batch", lambda: statements.batch(reader, state.max_steps))

    def _flush_before_save(self, control: Any) -> None:
        if self._run is not None and control.should_save:
            self._run.flush(on_disk=True)

    def _log_late(self, run: Recorder, metrics: Mapping[str, Any], step: int) -> None:
        """Record an evaluation that comes after the training, in the run that has ended."""
        options = {**self._options, "project": run.project, "run_id": run.run_id, "resume_step": step}
        kept = ("project", "run_id", "resume_step", "mode", "dir", "url", "api_key", "rank")
        said: dict[str, Any] = {name: options.get(name) for name in kept}
        with init(**said) as again:
            again.log(metrics, step=step)

    def _end(self, was_cut_short: bool = False) -> None:
        run, reader = self._run, self._reader
        atexit.unregister(self._end)
        if reader is not None:
            reader.close()
            self._reader = None
        if self._noise is not None:
            self._noise.close()
            self._noise = None
        if run is not None and not self._is_over:
            run.process_ends(crashed=was_cut_short)
        self._is_over = run is not None


def _metrics(logs: Mapping[str, Any]) -> dict[str, Any]:
    """A log's numbers by their columns, without the clocks and what sums the training up."""
    return {
        COLUMNS.get(name, name): value
        for name, value in logs.items()
        if name not in LEFT_OUT and not name.startswith("train_")
    }


def _reader(args: Any, model: Any) -> BatchReader | None:
    return None if args.torch_compile else BatchReader(model)  # a hook would compile it anew


def _mixed_precision(args: Any) -> dict[str, str]:
    if args.bf16:
        return {"precision": "mixed_bfloat16"}
    return {"precision": "mixed_float16"} if args.fp16 else {}


def _shape(model: Any) -> dict[str, Any]:
    config = getattr(model, "config", None)
    found = {
        "width": getattr(config, "hidden_size", None),
        "depth": getattr(config, "num_hidden_layers", None),
        "model_type": getattr(config, "model_type", None),
    }
    return {name: value for name, value in found.items() if isinstance(value, int | str)}


def _write(folder: Path, run: Recorder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{RUN_FILE}.part"
    part.write_text(json.dumps({"project": run.project, "run_id": run.run_id}))
    part.replace(folder / RUN_FILE)


def _read(folder: Path) -> str | None:
    """The run whose checkpoints lie in a folder."""
    try:
        return str(json.loads((folder / RUN_FILE).read_text())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
