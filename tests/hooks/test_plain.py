"""Loops in plain PyTorch that are watched: what is declared against what they are made of."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import isoloss
from isoloss.errors import InvalidInput
from isoloss.hooks.futures import rates_ahead
from isoloss.hooks.models import read_model
from isoloss.hooks.optimizers import read_optimizer

VOCABULARY, WIDTH = 32, 8


class Model(nn.Module):
    """The smallest that reads tokens; its output layer is tied to its table unless told otherwise."""

    def __init__(self, tied=True):
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.inside = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, VOCABULARY, bias=False)
        if tied:
            self.out.weight = self.table.weight

    def forward(self, tokens):
        return self.out(torch.tanh(self.inside(self.table(tokens))))


def warm_cosine(step, warmup=5, total=60):
    if step < warmup:
        return (step + 1) / warmup
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


SCHEDULERS = {
    "lambda": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine),
    "one_cycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=60),
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60),
    "sequential": lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 10),
            torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95),
        ],
        [10],
    ),
    "step": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 20),
    "restarts": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 15),
    "chained": lambda optimizer: torch.optim.lr_scheduler.ChainedScheduler(
        [
            torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5, 7),
            torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97),
        ]
    ),
}


def made(scheduler="lambda", optimizer=torch.optim.AdamW, **options):
    torch.manual_seed(0)
    model = Model()
    made = optimizer(model.parameters(), lr=3e-3, **options)
    return model, made, SCHEDULERS[scheduler](made)


def train(model, optimizer, scheduler, steps, accumulation=1, each=lambda step, loss, lr: None):
    """Train as anybody would, and tell each step's loss and the learning rate that it used."""
    for step in steps:
        torch.manual_seed(step)
        for _ in range(accumulation):
            tokens = torch.randint(VOCABULARY, (4, 17))
            logits = model(tokens[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
        lr = optimizer.param_groups[0]["lr"]
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        each(step, loss, lr)


def watched(truth, run, optimizer, scheduler, model, **options):
    watch = isoloss.watch(run, optimizer, scheduler, model=model, total_steps=60, **options)

    def each(step, loss, lr):
        assert watch.step == step
        run.log({"loss": loss}, step=watch.step)
        truth[step] = (loss.item(), float(lr))

    return each


def assert_recorded(client, run, truth):
    points = client.points.read(run.project, run.run_id)
    assert points["step"].tolist() == list(truth)
    assert list(zip(points["loss"].tolist(), points["lr"].tolist(), strict=True)) == list(truth.values())


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_watched_loop_declares_its_schedule_and_records_every_rate(client, place, said, name):
    model, optimizer, scheduler = made(name)
    truth: dict[int, tuple[float, float]] = {}
    with isoloss.init() as run:
        each = watched(truth, run, optimizer, scheduler, model)
        train(model, optimizer, scheduler, range(1, 61), each=each)
    assert said() == []
    assert_recorded(client, run, truth)
    document = client.runs.get(run.project, run.run_id)
    schedule = isoloss.schedule_from_spec(document["schedule"])
    assert schedule.total_steps == 60
    rates = [lr for _, lr in truth.values()]
    np.testing.assert_allclose(schedule.lr(range(1, 61)), rates, rtol=1e-9)
    assert document["config"]["peak_lr"] == max(rates)


def test_a_watched_loop_declares_what_a_law_needs(client, place, said):
    model, optimizer, scheduler = made(weight_decay=0.1)
    with isoloss.init(config={"seed": 0}) as run:
        each = watched({}, run, optimizer, scheduler, model)
        train(model, optimizer, scheduler, range(1, 61), accumulation=3, each=each)
    assert said() == []
    config = client.runs.get(run.project, run.run_id)["config"]
    assert config == {
        "seed": 0,
        "optimizer": "adamw",
        "peak_lr": 3e-3,
        "weight_decay": 0.1,
        "weight_decay_kind": "lr_scaled",
        "n_params": WIDTH * WIDTH + WIDTH,
        "n_params_kind": "non_embedding",
        "n_params_total": VOCABULARY * WIDTH + WIDTH * WIDTH + WIDTH,
        "n_params_non_embedding": WIDTH * WIDTH + WIDTH,
        "n_params_active": VOCABULARY * WIDTH + WIDTH * WIDTH + WIDTH,
        "precision": "float32",
        "batch_tokens": 3 * 4 * 16,
        "sequence_length": 16,
        "n_tokens": 60 * 3 * 4 * 16,
    }


def test_what_the_owner_says_is_not_overruled(client, place):
    model, optimizer, scheduler = made()
    stated = {"n_params": 7, "n_params_kind": "active", "batch_tokens": 99, "optimizer": "mine"}
    schedule = {"kind": "constant", "total_steps": 60, "peak_lr": 1.0}
    with isoloss.init(config=stated, schedule=schedule) as run:
        isoloss.watch(run, optimizer, scheduler, model=model, total_steps=60)
        train(model, optimizer, scheduler, range(1, 4))
    document = client.runs.get(run.project, run.run_id)
    assert document["schedule"] == schedule
    assert stated.items() <= document["config"].items()
    assert document["config"]["n_tokens"] == 60 * 99


def test_a_watched_training_computes_the_same_as_one_that_is_not(client, place):
    alone, beside = made("one_cycle"), made("one_cycle")
    before = copy.deepcopy((beside[1].state_dict(), beside[2].state_dict(), torch.get_rng_state().tolist()))
    with isoloss.init() as run:
        each = watched({}, run, beside[1], beside[2], beside[0])
        after = (beside[1].state_dict(), beside[2].state_dict(), torch.get_rng_state().tolist())
        assert str(after) == str(before)
        train(*beside, range(1, 61), each=each)
    train(*alone, range(1, 61))
    for one, other in zip(alone[0].parameters(), beside[0].parameters(), strict=True):
        assert torch.equal(one, other)
    assert len(beside[0]._forward_pre_hooks) == 0


def test_a_loop_that_resumes_counts_on_and_keeps_the_declared_schedule(client, place, said):
    model, optimizer, scheduler = made()
    truth: dict[int, tuple[float, float]] = {}
    with isoloss.init(run_id="r") as run:
        each = watched(truth, run, optimizer, scheduler, model)
        train(model, optimizer, scheduler, range(1, 31), each=each)
        saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), scheduler.state_dict()))
        train(model, optimizer, scheduler, range(31, 41), each=each)
    declared = client.runs.get(run.project, "r")["schedule"]
    again = made()
    for part, state in zip(again, saved, strict=True):
        part.load_state_dict(state)
    with isoloss.init(run_id="r") as run:
        each = watched(truth, run, again[1], again[2], again[0])
        train(*again, range(31, 61), each=each)
    assert_recorded(client, run, truth)
    assert client.runs.get(run.project, "r")["schedule"] == declared
    [removed] = said()
    assert "steps up to 40; it goes on from step 31" in removed


@pytest.mark.parametrize(
    ("optimizer", "options", "kind"),
    [
        (torch.optim.AdamW, {}, "lr_scaled"),
        (torch.optim.Adam, {}, "l2"),
        (torch.optim.SGD, {}, "l2"),
        (torch.optim.NAdam, {}, "l2"),
        (torch.optim.NAdam, {"decoupled_weight_decay": True}, "lr_scaled"),
        (torch.optim.RAdam, {"decoupled_weight_decay": True}, "lr_scaled"),
        (torch.optim.Adafactor, {}, "lr_scaled"),
        (torch.optim.RMSprop, {}, "l2"),
    ],
)
def test_the_kind_of_a_weight_decay_is_what_the_optimizer_does_with_it(optimizer, options, kind):
    weight = nn.Parameter(torch.ones(3, 3))
    found = read_optimizer(optimizer([weight], lr=0.1, weight_decay=0.5, **options))
    assert (found.weight_decay, found.weight_decay_kind) == (0.5, kind)


def test_the_settings_are_those_of_the_group_that_holds_the_most_numbers():
    groups = [
        {"params": [nn.Parameter(torch.ones(3))], "weight_decay": 0.0, "lr": 1.0},
        {"params": [nn.Parameter(torch.ones(30))], "weight_decay": 0.2, "lr": 2.0},
    ]
    found = read_optimizer(torch.optim.AdamW(groups))
    assert (found.group, found.lr, found.weight_decay) == (1, 2.0, 0.2)


@pytest.mark.parametrize("decay", [math.nan, 11.0])
def test_a_weight_decay_that_no_law_could_take_is_left_out(decay):
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(3))])
    optimizer.param_groups[0]["weight_decay"] = decay
    assert read_optimizer(optimizer).config() == {"optimizer": "adamw"}


def test_an_output_layer_counts_as_no_embedding_unless_it_is_tied_to_one():
    tied, free = read_model(Model()), read_model(Model(tied=False), n_params_active=100)
    inside, table = WIDTH * WIDTH + WIDTH, VOCABULARY * WIDTH
    assert (tied["n_params_total"], tied["n_params_non_embedding"]) == (inside + table, inside)
    assert (free["n_params_total"], free["n_params_non_embedding"]) == (inside + 2 * table, inside + table)
    assert (tied["n_params_active"], free["n_params_active"]) == (inside + table, 100)
    assert read_model(Model().to(torch.bfloat16))["precision"] == "bfloat16"


def test_a_schedule_stepped_once_an_epoch_stands_for_an_epoch():
    _, optimizer, scheduler = made("step")
    rates = rates_ahead(scheduler, 100, every=2)
    np.testing.assert_allclose(rates, [3e-3 * 0.1 ** (step // 40) for step in range(100)], rtol=1e-12)
    assert optimizer.param_groups[0]["lr"] == 3e-3


class Unruly(torch.optim.lr_scheduler.LRScheduler):
    """One that fails when it is stepped ahead."""

    def get_lr(self):
        if self.last_epoch > 3:
            raise RuntimeError("not now")
        return [1e-3 for _ in self.base_lrs]


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer), "while it trains"),
        (Unruly, "not now"),
        (lambda optimizer: None, "without scheduler="),
        (lambda optimizer: object(), "no attribute"),
        (lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: math.nan), "finite"),
        (lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0), "0 at every step"),
        (
            lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=5),
            "step 6 times",
        ),
    ],
)
def test_a_scheduler_that_cannot_be_known_ahead_is_said_once_and_training_goes_on(
    client, place, said, scheduler, reason
):
    model, optimizer, _ = made()
    with isoloss.init() as run:
        isoloss.watch(run, optimizer, scheduler(optimizer), model=model, total_steps=60)
        optimizer.param_groups[0].update(lr=1e-3, initial_lr=1e-3)
        train(model, optimizer, SCHEDULERS["step"](optimizer), range(1, 6))
    assert len(said()) == 1
    assert reason in said()[0]
    document = client.runs.get(run.project, run.run_id)
    assert document["schedule"] is None
    assert "peak_lr" not in document["config"]
    assert client.points.read(run.project, run.run_id)["step"].tolist() == [1, 2, 3, 4, 5]


def test_batches_of_different_lengths_are_no_batch_in_tokens(client, place, said):
    model, optimizer, scheduler = made()
    with isoloss.init() as run:
        isoloss.watch(run, optimizer, scheduler, model=model, total_steps=60)
        for length in (5, 6, 7):
            model(torch.zeros(2, length, dtype=torch.long)).sum().backward()
            optimizer.step()
            scheduler.step()
    assert [text for text in said() if "batch_tokens=" in text] == said()
    assert "batch_tokens" not in client.runs.get(run.project, run.run_id)["config"]


def test_mixed_precision_is_seen_where_the_model_is_called(client, place):
    model, optimizer, scheduler = made()
    with isoloss.init() as run:
        isoloss.watch(run, optimizer, scheduler, model=model, total_steps=60)
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                model(torch.zeros(2, 5, dtype=torch.long)).sum().backward()
            optimizer.step()
            scheduler.step()
    assert client.runs.get(run.project, run.run_id)["config"]["precision"] == "mixed_bfloat16"


def test_a_rank_that_records_nothing_counts_its_steps(place, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    model, optimizer, scheduler = made()
    with isoloss.init() as run:
        each = watched({}, run, optimizer, scheduler, model)
        train(model, optimizer, scheduler, range(1, 6), each=each)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"total_steps": 0}, "total_steps"),
        ({"total_steps": 10.5}, "total_steps"),
        ({"scheduler_every": 0}, "scheduler_every"),
        ({"optimizer": object()}, "optimizer"),
        ({"run": "r"}, "run"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_by_name(place, options, field):
    _, optimizer, scheduler = made()
    with isoloss.init(mode="disabled") as run, pytest.raises(InvalidInput, match=field):
        isoloss.watch(**{"run": run, "optimizer": optimizer, "scheduler": scheduler, **options})
