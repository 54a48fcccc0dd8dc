"""A training with Lightning as a process of its own, which tests kill.

`python lightning_trainer.py FOLDER [resume] [what=value ...]`. The module writes what every step was computed with
to `FOLDER/truth-RANK`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from isoloss.errors import InvalidInput
from isoloss.hooks.lightning import IsolossCallback, IsolossLogger
from tests.hooks.trainings import hold

STEPS, BATCHES_AN_EPOCH = 60, 40


class Module(lightning.LightningModule):
    """Predicts the next of random tokens."""

    def __init__(self, folder, options):
        super().__init__()
        self.truth = (folder / f"truth-{os.environ.get('RANK', '0')}").open("a", buffering=1)
        self.folder, self.options, self.losses = folder, options, []
        self.table, self.out = nn.Embedding(64, 16), nn.Linear(16, 64)

    def loss(self, tokens):
        logits = self.out(self.table(tokens[:, :-1]))
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    def training_step(self, tokens, index):
        loss = self.loss(tokens)
        self.losses.append(loss.item())
        self.log("train_loss", loss)
        return loss

    def validation_step(self, tokens, index):
        self.log("val_loss", self.loss(tokens))

    def on_before_optimizer_step(self, optimizer):
        row = {"step": self.global_step + 1, "lr": optimizer.param_groups[0]["lr"], "loss": self.losses[-1]}
        self.truth.write(json.dumps(row) + "\n")
        hold(self.folder, self.options, self.global_step)
        if row["step"] == int(self.options.get("raise_at", "-1")):
            raise RuntimeError("the training fails")

    def on_validation_epoch_end(self):
        row = {"step": self.global_step, "val_loss": self.trainer.callback_metrics["val_loss"].item()}
        self.truth.write(json.dumps(row) + "\n")

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3, weight_decay=0.1)
        if self.options.get("interval") == "epoch":
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def main(folder: Path, options: dict[str, str]) -> None:
    if "misnamed" in options:
        try:
            IsolossLogger("p", run_id=options["misnamed"])
        except InvalidInput as refusal:
            print(f"run refused: {refusal}")
    lightning.seed_everything(0)
    tokens = torch.randint(64, (4 * BATCHES_AN_EPOCH, 17))
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_steps=STEPS,
        accumulate_grad_batches=2,
        log_every_n_steps=1,
        val_check_interval=20,
        limit_val_batches=2,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        logger=IsolossLogger(config={"dataset": "noise"}),
        callbacks=[
            IsolossCallback(),
            ModelCheckpoint(folder / "out", save_last=True, every_n_train_steps=20, save_top_k=-1),
        ],
    )
    loader = torch.utils.data.DataLoader(tokens, batch_size=4)
    resumed = str(folder / "out" / "last.ckpt") if "resume" in options else None
    trainer.fit(Module(folder, options), loader, loader, ckpt_path=resumed)


if __name__ == "__main__":
    given = (each.partition("=") for each in sys.argv[2:])
    main(Path(sys.argv[1]), {name: value for name, _, value in given})
