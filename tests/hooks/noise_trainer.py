"""Linear regressions whose gradient noise is known, by the library that is named; each clips its gradients.

`python noise_trainer.py FOLDER LIBRARY ...`. The weights stay where they are: the rate is next to nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import distributed, nn

import isoloss

WIDTH, AWAY, NOISE = 20, 1.0, 0.5
UPDATES, PASSES, SEQUENCES = 500, 4, 32
RATE, CLIP = 1e-12, 0.01
TRUTH = WIDTH + 1 + NOISE**2 * WIDTH / AWAY**2
"""Of y = x w* + noise with normal x and weights that are AWAY from w*: tr(Sigma) / |G|^2 in samples."""


class Regression(nn.Module):
    """Half the mean squared error; no bias."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((WIDTH,), AWAY / WIDTH**0.5))

    def forward(self, x, y):
        return {"loss": 0.5 * (x @ self.weight - y).square().mean()}


class Samples(torch.utils.data.Dataset):
    """Samples around weights of zero, the same for the same seed."""

    def __init__(self, n, seed):
        generator = torch.Generator().manual_seed(seed)
        self.x, self.noise = (torch.randn(n, *shape, generator=generator) for shape in ((WIDTH,), ()))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "y": NOISE * self.noise[index]}


def optimizer_of(model):
    return torch.optim.SGD(model.parameters(), lr=RATE)


def tokens(ranks=1, passes=PASSES):
    return {"batch_tokens": passes * SEQUENCES * ranks}


def plain(folder: Path, passes: int = PASSES) -> None:
    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    model: nn.Module = Regression()
    if ranks > 1:
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = optimizer_of(model)
    samples = Samples(UPDATES * passes * SEQUENCES, seed=rank)
    loader = iter(torch.utils.data.DataLoader(samples, SEQUENCES))
    with isoloss.init(run_id=f"plain-{passes}-{ranks}", config=tokens(ranks, passes)) as run:
        isoloss.watch(run, optimizer, noise_scale=True)
        for _ in range(UPDATES):
            for _ in range(passes):
                model(**next(loader))["loss"].backward()  # not divided by the number of passes
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()


def ranks(folder: Path) -> None:
    distributed.init_process_group("gloo")
    for passes in (1, PASSES):
        plain(folder, passes)
    distributed.destroy_process_group()


def hugging_face(folder: Path) -> None:
    from transformers import Trainer, TrainingArguments

    from isoloss.hooks.hugging_face import IsolossCallback

    arguments = TrainingArguments(
        output_dir=str(folder / "out"), max_steps=UPDATES, per_device_train_batch_size=SEQUENCES,
        gradient_accumulation_steps=PASSES, learning_rate=RATE, max_grad_norm=CLIP, optim="sgd",
        lr_scheduler_type="constant", logging_steps=100, save_strategy="no", report_to="none",
        disable_tqdm=True, use_cpu=True, remove_unused_columns=False,
    )  # fmt: skip
    callback = IsolossCallback(run_id="hugging-face", config=tokens(), noise_scale=True)
    samples = Samples(UPDATES * PASSES * SEQUENCES, seed=3)
    Trainer(Regression(), arguments, train_dataset=samples, callbacks=[callback]).train()


def lightning(folder: Path) -> None:
    import lightning as pl

    from isoloss.hooks.lightning import IsolossCallback, IsolossLogger

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.inner = Regression()

        def training_step(self, batch, index):
            return self.inner(**batch)["loss"]

        def configure_optimizers(self):
            return optimizer_of(self)

    trainer = pl.Trainer(
        accelerator="cpu", max_steps=UPDATES, accumulate_grad_batches=PASSES, gradient_clip_val=CLIP,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        default_root_dir=folder, logger=IsolossLogger(run_id="lightning", config=tokens()),
        callbacks=[IsolossCallback(noise_scale=True)],
    )  # fmt: skip
    samples = Samples(UPDATES * PASSES * SEQUENCES, seed=4)
    trainer.fit(Module(), torch.utils.data.DataLoader(samples, SEQUENCES))


LIBRARIES = {"plain": plain, "ranks": ranks, "hugging-face": hugging_face, "lightning": lightning}

if __name__ == "__main__":
    for name in sys.argv[2:]:
        LIBRARIES[name](Path(sys.argv[1]))
