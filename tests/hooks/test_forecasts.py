"""Forecasts that are shown while a run trains, by every hook, from a real service."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import isoloss
from isoloss.client import Client, outlook
from isoloss.errors import InvalidInput
from tests.faults.service import Service
from tests.forecasting.studies import CONFIG, FINISHED, NEXT, losses

pytestmark = pytest.mark.faults

PATIENCE_S = 60
# A hook states the decay that it reads: with this one every run is told of by the same finished ones.
DECAYED = {**CONFIG, "weight_decay": 0.1, "weight_decay_kind": "lr_scaled"}
STUDY = {"project": "study", "config": DECAYED, "show_forecast": True}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that looks after runs every second, with a study of finished runs."""
    folder = Path(tempfile.mkdtemp(prefix="il-"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ISOLOSS_FORECAST_EVERY_S", "1")
        running = Service(folder / "data")
    with running.client() as client:
        put_study(client)
    yield running
    running.running.close()
    shutil.rmtree(folder)


def put_study(client: Client) -> None:
    client.projects.create("study")
    for number, schedule in enumerate(FINISHED):
        step, loss = losses(schedule, number)
        client.runs.put("study", f"done-{number}", config=DECAYED, schedule=schedule, status="finished")
        client.points.append("study", f"done-{number}", {"step": step, "loss": loss})


@pytest.fixture
def place(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process records at the service, and asks for forecasts often."""
    for name in ("RANK", "WORLD_SIZE", "ISOLOSS_RUN_ID", "ISOLOSS_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ISOLOSS_URL", service.url)
    monkeypatch.setenv("ISOLOSS_API_KEY", service.api_key)
    monkeypatch.setenv("ISOLOSS_DIR", str(tmp_path / "runs"))
    monkeypatch.setattr(outlook, "ASK_EVERY_S", 0.3)
    return tmp_path


class Patience:
    """Slows a training down until its forecast is there."""

    def __init__(self) -> None:
        self.until = time.monotonic() + PATIENCE_S

    def is_over(self, run: Any) -> bool:
        time.sleep(0.05)
        return run.forecast is not None or time.monotonic() > self.until


def test_a_loop_prints_its_forecast(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On stderr, once for each that is new; nothing is asked for once the run has ended."""
    patience = Patience()
    step, loss = losses(NEXT, 99, last=200)
    with isoloss.init(run_id="loop", schedule=NEXT, **STUDY) as run:
        for at, value in zip(step.tolist(), loss.tolist(), strict=True):
            run.log({"loss": value}, step=at)
        while not patience.is_over(run):
            pass
        assert run.forecast is not None
        assert run.forecast["value"] is not None
    time.sleep(1)
    said = [line for line in capfd.readouterr().err.splitlines() if "final loss" in line]
    assert said
    assert said[0].startswith("run loop at step ")
    assert " of 400: final loss " in said[0]
    assert " at 90 %" in said[0]
    assert len(said) == len(set(said))


def test_nothing_is_said_where_there_is_no_forecast_and_no_service(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a project without finished runs nor a service that is gone is mentioned by it."""
    with isoloss.init("empty", run_id="alone", schedule=NEXT, show_forecast=True) as run:
        run.log({"loss": 3.0}, step=1)
        time.sleep(2)
        assert run.forecast is None
    monkeypatch.setenv("ISOLOSS_URL", "http://127.0.0.1:9")
    with isoloss.init("empty", run_id="alone", schedule=NEXT, show_forecast=True) as run:
        time.sleep(1.5)
        assert run.forecast is None
    for mode in ("offline", "disabled"):
        with isoloss.init("empty", show_forecast=True, mode=mode) as run:
            assert run.forecast is None
    assert "final" not in capfd.readouterr().err


@pytest.mark.parametrize("value", [1, "yes", None])
def test_what_is_neither_on_nor_off_is_refused(place: Path, value: Any) -> None:
    with pytest.raises(InvalidInput, match="show_forecast"):
        isoloss.init("study", show_forecast=value)


def test_hugging_face_prints_it_above_its_progress_bar(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the callback's `show_forecast=True`."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from isoloss.hooks.hugging_face import IsolossCallback
    from tests.hooks.hugging_face_trainer import Text

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
            control.should_training_stop = patience.is_over(callback._run)

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    arguments = TrainingArguments(
        output_dir=str(place / "out"),
        max_steps=2000,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        weight_decay=0.1,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
    )
    callback, patience = IsolossCallback(run_id="hugging-face", **STUDY), Patience()
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, max_position_embeddings=32, **sizes))
    Trainer(model, arguments, train_dataset=Text(512, 16), callbacks=[callback, Stop()]).train()
    time.sleep(0.5)
    assert "run hugging-face at step " in capfd.readouterr().err


@pytest.mark.filterwarnings(r"ignore:.isinstance\(treespec, LeafSpec\). is deprecated:FutureWarning")
def test_lightning_shows_it_in_its_progress_bar(place: Path) -> None:
    """As a metric of the bar, and of no logger."""
    import lightning
    import torch
    from torch import nn

    from isoloss.hooks.lightning import IsolossCallback, IsolossLogger

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(64, 16), nn.Linear(16, 64)

        def training_step(self, tokens: Any, index: int) -> Any:
            logits = self.out(self.table(tokens[:, :-1]))
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.1)
            scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    class Stop(lightning.Callback):
        seen: float | None = None

        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            self.seen = trainer.progress_bar_metrics.get("forecast", self.seen)
            is_over = patience.is_over(logger.experiment)
            trainer.should_stop = self.seen is not None or (is_over and time.monotonic() > patience.until)

    logger, stop, patience = IsolossLogger(run_id="lightning", **STUDY), Stop(), Patience()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=2000,
        log_every_n_steps=1,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=place,
        logger=logger,
        callbacks=[IsolossCallback(), stop],
    )
    tokens = torch.randint(64, (16_000, 17))
    trainer.fit(Module(), torch.utils.data.DataLoader(tokens, batch_size=4))
    assert stop.seen is not None
    assert stop.seen > 0
    with Client() as client:
        assert "forecast" not in client.points.read("study", "lightning")
