"""Record the training curves of `examples/data`: a small byte-level transformer under several schedules.

    python examples/record_curves.py --out examples/data

trains every run of `planned_runs` on the sources of Python's standard library, one CSV file a run, and
describes them in `runs.json`. A run is a deterministic function of its seed, of the corpus and of the machine's
arithmetic; no two runs share a seed, so their noise is independent.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from isoloss.schedules import schedule_from_spec

SEQUENCE_LENGTH = 128  # tokens, one byte each
BATCH_SEQUENCES = 24
BATCH_TOKENS = BATCH_SEQUENCES * SEQUENCE_LENGTH
VOCABULARY = 256
HEAD_WIDTH = 16
PEAK_LR = 4e-3
WEIGHT_DECAY = 0.1  # per step w *= 1 - eta * WEIGHT_DECAY: "lr_scaled"
BETAS = (0.9, 0.95)
CLIP_NORM = 1.0
STEPS = 3000  # a little more than one pass over the text
LOG_EVERY = 25  # steps
EVALUATE_EVERY = 50  # steps
VALIDATION_SEQUENCES = 512
VALIDATION_CHUNKS = 32  # of equal size, so that the mean of their means is the mean
VALIDATION_EVERY = 20  # one file in so many is held out
COLUMNS = ("step", "lr", "loss", "val_loss", "tokens")
SKIPPED_FOLDERS = {"site-packages", "test", "tests", "idlelib", "encodings", "pydoc_data", "turtledemo"}


# The text


@dataclass(frozen=True)
class Corpus:
    """Bytes of the standard library's sources, split by file; `sha256` is that of the training bytes and
    then the validation bytes."""

    train: Tensor  # uint8, one long text
    validation: Tensor  # uint8
    n_files: int
    sha256: str


def source_files(root: Path) -> list[Path]:
    """The library's Python files in sorted order, without tests, tables and what differs by machine."""
    paths = (path.relative_to(root) for path in root.rglob("*.py"))
    return sorted(path for path in paths if is_corpus_file(path))


def is_corpus_file(path: Path) -> bool:
    """Whether a path relative to the standard library's folder belongs to the text."""
    machine_specific = path.parts[0].startswith(("config-", "_sysconfigdata"))
    return not machine_specific and SKIPPED_FOLDERS.isdisjoint(path.parts)


def read_corpus() -> Corpus:
    """Read the text; every VALIDATION_EVERY-th file of the sorted list is held out for validation."""
    root = Path(sysconfig.get_path("stdlib"))
    texts = [(root / path).read_bytes() for path in source_files(root)]
    validation = b"".join(texts[VALIDATION_EVERY - 1 :: VALIDATION_EVERY])
    train = b"".join(text for i, text in enumerate(texts) if i % VALIDATION_EVERY != VALIDATION_EVERY - 1)
    return Corpus(
        train=torch.frombuffer(bytearray(train), dtype=torch.uint8),
        validation=torch.frombuffer(bytearray(validation), dtype=torch.uint8),
        n_files=len(texts),
        sha256=hashlib.sha256(train + validation).hexdigest(),
    )


def training_batches(text: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield batches [BATCH_SEQUENCES, SEQUENCE_LENGTH + 1] for ever; within an epoch no target repeats.

    Each epoch cuts the text into windows at a random offset and visits them in a random order.
    """
    generator = torch.Generator().manual_seed(seed)
    reach = torch.arange(SEQUENCE_LENGTH + 1)
    while True:
        offset = int(torch.randint(SEQUENCE_LENGTH, (), generator=generator))
        n_windows = (len(text) - 1 - offset) // SEQUENCE_LENGTH
        order = torch.randperm(n_windows, generator=generator)
        for windows in torch.split(order, BATCH_SEQUENCES)[: n_windows // BATCH_SEQUENCES]:
            yield text[offset + windows[:, None] * SEQUENCE_LENGTH + reach].long()


def validation_windows(text: Tensor) -> Tensor:
    """The validation set: windows [VALIDATION_SEQUENCES, SEQUENCE_LENGTH + 1] evenly spaced in the text."""
    starts = torch.linspace(0, len(text) - SEQUENCE_LENGTH - 1, VALIDATION_SEQUENCES).long()
    return text[starts[:, None] + torch.arange(SEQUENCE_LENGTH + 1)].long()


# The model


@dataclass(frozen=True)
class Size:
    """A model size: `width` of the residual stream, `depth` in blocks."""

    name: str
    width: int
    depth: int


def normalise(x: Tensor) -> Tensor:
    """Root-mean-square normalisation over the last axis, without gain."""
    return functional.rms_norm(x, (x.shape[-1],))


class Block(nn.Module):
    """Pre-norm causal attention with rotary positions, then an MLP of four times the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_in = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.mlp_in = nn.Linear(width, 4 * width, bias=False)
        self.mlp_out = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Residual stream [batch, time, width] in, the same out."""
        x = x + self.attention_out(self.attend(normalise(x)))
        hidden = functional.gelu(self.mlp_in(normalise(x)), approximate="tanh")
        written: Tensor = self.mlp_out(hidden)
        return x + written

    def attend(self, x: Tensor) -> Tensor:
        """Causal self-attention over heads of HEAD_WIDTH, before the output projection."""
        heads = self.attention_in(x).unflatten(-1, (3, -1, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        query, key = rotate(heads[:2])
        mixed = functional.scaled_dot_product_attention(query, key, heads[2], is_causal=True)
        return mixed.transpose(1, 2).flatten(2)


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): turn pairs of features of x [..., time, HEAD_WIDTH]."""
    cosine, sine = rotation_table(x.shape[-2])
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


@cache
def rotation_table(n_positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [n_positions, HEAD_WIDTH / 2] of the angles of every position."""
    frequencies = 10_000.0 ** (-torch.arange(0, HEAD_WIDTH, 2) / HEAD_WIDTH)
    angles = torch.arange(n_positions)[:, None] * frequencies
    return angles.cos(), angles.sin()


class ByteTransformer(nn.Module):
    """Decoder-only transformer over bytes: tied embeddings, no biases, no gains."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, size.width)
        self.blocks = nn.ModuleList(Block(size.width) for _ in range(size.depth))
        self.initialise(size)

    def initialise(self, size: Size) -> None:
        """Normal weights: sd 0.02 for the embedding, else 1/sqrt(fan in), over sqrt(2 depth) before a sum."""
        for name, weight in self.named_parameters():
            sd = 0.02 if name == "token.weight" else weight.shape[1] ** -0.5
            if name.endswith("_out.weight"):
                sd /= math.sqrt(2 * size.depth)
            nn.init.normal_(weight, std=sd)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [batch, time, VOCABULARY] of the next byte for tokens [batch, time]."""
        x = normalise(self.token(tokens))
        for block in self.blocks:
            x = block(x)
        return functional.linear(normalise(x), self.token.weight)

    def loss_nats(self, windows: Tensor) -> Tensor:
        """Mean cross-entropy in nats per token of windows [batch, time + 1]."""
        logits = self(windows[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


# The runs


SMALL = Size("small", width=32, depth=2)
LARGE = Size("large", width=64, depth=2)


@dataclass(frozen=True)
class PlannedRun:
    """One run: its model size, its schedule (a declaration that `schedule_from_spec` reads) and its seed.

    The seed decides the initial weights and the order of the data.
    """

    size: Size
    schedule_name: str
    spec: dict[str, Any]
    seed: int

    @property
    def name(self) -> str:
        return f"{self.size.name}_{self.schedule_name}"


def planned_runs(steps: int = STEPS) -> list[PlannedRun]:
    """Every run of the recording, of `steps` updates or fewer, each with a seed of its own."""
    pairs = [(size, name, spec) for size in (SMALL, LARGE) for name, spec in schedule_specs(steps).items()]
    return [PlannedRun(size, name, spec, seed) for seed, (size, name, spec) in enumerate(pairs, start=1)]


def schedule_specs(steps: int) -> dict[str, dict[str, Any]]:
    """Declarations by name: six shapes over `steps` updates, and one of them over six tenths as many."""
    full = {"total_steps": steps, "peak_lr": PEAK_LR, "warmup_steps": steps // 20}
    tenth_lr = {"end_lr": 0.1 * PEAK_LR}
    return {
        "constant": {"kind": "constant"} | full,
        "cosine": {"kind": "cosine"} | full | tenth_lr,
        "wsd_linear": {"kind": "wsd"} | full | {"decay_start": steps * 8 // 10, "decay_shape": "linear"},
        "wsd_sqrt": {"kind": "wsd"} | full | {"decay_start": steps * 7 // 10, "decay_shape": "sqrt"},
        "two_stage": {"kind": "two_stage"} | full | {"switch_step": steps // 2, "second_lr": 0.3 * PEAK_LR},
        "linear": {"kind": "linear"} | full,
        "cosine_short": {"kind": "cosine"} | full | tenth_lr | {"total_steps": steps * 6 // 10},
    }


# Training


@dataclass(frozen=True)
class Point:
    """One line of a curve, after `step` updates: `lr` is that of the last one, `loss` the mean training loss in
    nats per token since the point before, `val_loss` that of the validation set where it was measured."""

    step: int
    lr: float
    loss: float
    val_loss: float | None
    tokens: int

    def cells(self) -> list[str]:
        val_loss = "" if self.val_loss is None else f"{self.val_loss:.6g}"
        return [str(self.step), f"{self.lr:.12g}", f"{self.loss:.6g}", val_loss, str(self.tokens)]


def train(
    run: PlannedRun, corpus: Corpus, log_every: int = LOG_EVERY, evaluate_every: int = EVALUATE_EVERY
) -> Iterator[Point]:
    """Train one run from its seed; yield a point every `log_every` steps."""
    torch.manual_seed(run.seed)
    model = ByteTransformer(run.size)
    optimizer = torch.optim.AdamW(model.parameters(), betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    batches = training_batches(corpus.train, run.seed)
    held_out = validation_windows(corpus.validation)
    losses: list[float] = []
    for step, lr in enumerate(learning_rates(run.spec), start=1):
        losses.append(update(model, optimizer, next(batches), lr))
        if step % log_every == 0:
            val_loss = evaluate(model, held_out) if step % evaluate_every == 0 else None
            yield Point(step, lr, float(np.mean(losses)), val_loss, step * BATCH_TOKENS)
            losses.clear()


def learning_rates(spec: dict[str, Any]) -> list[float]:
    """The learning rate of every update of a declared schedule."""
    steps = np.arange(1, spec["total_steps"] + 1)
    return [float(lr) for lr in schedule_from_spec(spec).lr(steps)]


def update(model: ByteTransformer, optimizer: torch.optim.Optimizer, windows: Tensor, lr: float) -> float:
    """Make one optimiser update at learning rate `lr`; return the loss before it, nats per token."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss = model.loss_nats(windows)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    return loss.item()


@torch.inference_mode()
def evaluate(model: ByteTransformer, windows: Tensor) -> float:
    """Mean loss in nats per token over the validation windows, in equal chunks."""
    chunks = windows.chunk(VALIDATION_CHUNKS)
    return float(np.mean([model.loss_nats(chunk).item() for chunk in chunks]))


# What is written


def describe(run: PlannedRun) -> dict[str, Any]:
    """The entry of `runs.json` for a run: file, names, configuration and declared schedule."""
    return {
        "file": f"{run.name}.csv",
        "run_id": run.name,
        "name": f"{run.size.name}, {run.schedule_name.replace('_', ' ')}",
        "recipe": run.schedule_name,
        "config": configuration(run),
        "schedule": run.spec,
        "status": "finished",
    }


def configuration(run: PlannedRun) -> dict[str, Any]:
    """The run's configuration: counts of parameters and tokens, optimiser, shape of the model, data."""
    counts = count_parameters(run.size)
    return {
        "n_params": counts["n_params_non_embedding"],
        "n_params_kind": "non_embedding",
        **counts,
        "n_tokens": run.spec["total_steps"] * BATCH_TOKENS,
        "batch_tokens": BATCH_TOKENS,
        "sequence_length": SEQUENCE_LENGTH,
        "optimizer": "adamw",
        "peak_lr": PEAK_LR,
        "weight_decay": WEIGHT_DECAY,
        "weight_decay_kind": "lr_scaled",
        "width": run.size.width,
        "depth": run.size.depth,
        "dataset": f"python-{sysconfig.get_python_version()}-standard-library",
        "tokenizer": "bytes",
        "seed": run.seed,
    }


def count_parameters(size: Size) -> dict[str, int]:
    """Numbers of trained weights, with and without the (tied) embedding."""
    model = ByteTransformer(size)
    total = sum(weight.numel() for weight in model.parameters())
    return {"n_params_total": total, "n_params_non_embedding": total - model.token.weight.numel()}


def record(run: PlannedRun, corpus: Corpus, folder: Path) -> None:
    """Train a run and write its curve and its entry of `runs.json` into `folder`."""
    started = time.perf_counter()
    points = list(train(run, corpus))
    with (folder / f"{run.name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(point.cells() for point in points)
    write_entry(describe(run), folder / "runs.json")
    print(f"{run.name}: {time.perf_counter() - started:.0f} s, {points[-1]}", flush=True)


def write_entry(entry: dict[str, Any], path: Path) -> None:
    """Add an entry to the list of runs at `path`, in place of an older one of the same run."""
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    by_id = {old["run_id"]: old for old in entries} | {entry["run_id"]: entry}
    path.write_text(json.dumps(list(by_id.values()), indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Record the runs that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data", help="folder to write")
    parser.add_argument("--only", help="record this run alone, for instance small_cosine")
    parser.add_argument("--steps", type=int, default=STEPS, help="length of the full schedules")
    asked = parser.parse_args()
    runs = [run for run in planned_runs(asked.steps) if asked.only in (None, run.name)]
    if not runs:
        parser.error(f"there is no run {asked.only!r}: {', '.join(run.name for run in planned_runs())}")
    torch.set_num_threads(1)
    corpus = read_corpus()
    print(
        f"text: {corpus.n_files} files, {len(corpus.train)} + {len(corpus.validation)} bytes, {corpus.sha256}"
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        record(run, corpus, asked.out)


if __name__ == "__main__":
    main()
