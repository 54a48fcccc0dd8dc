"""The gradient noise scale that hooks measure, against regressions in which it is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import isoloss
from isoloss.hooks.gradients import LEAST_EVERY, MOST_SHARE, GradientNorms
from isoloss.laws.noise_scale import BATCHES, BIG, SMALL, gradient_noise, simple_noise_scale, squared_gradient
from tests.hooks.noise_trainer import PASSES, SEQUENCES, TRUTH
from tests.hooks.trainings import TWO_RANKS, ended

TRAINER = Path(__file__).with_name("noise_trainer.py")


def readings_of(client, project, run_id):
    """Norms of the run and their batches; one point has both norms or none."""
    points = client.points.read(project, run_id, columns=[SMALL, BIG])
    config = client.runs.get(project, run_id)["config"]
    norms = [points[name].compressed() for name in (SMALL, BIG)]
    return *norms, *(config[name] for name in BATCHES)


def assert_meets_the_truth(readings, truth=TRUTH):
    """Within four standard errors, which resamples tell, and those are small enough to tell it from half of it."""
    small, big, *batches = readings
    assert len(small) == len(big) > 20
    numbers = np.random.default_rng(0)
    resamples = []
    for _ in range(300):
        rows = numbers.integers(len(small), size=len(small))
        parts = (each(small[rows], big[rows], *batches).mean() for each in (gradient_noise, squared_gradient))
        resamples.append(np.divide(*parts))
    error = float(np.std(np.log(resamples)))
    assert error < 0.2, (error, len(small), simple_noise_scale(small, big, *batches))
    assert abs(np.log(simple_noise_scale(small, big, *batches) / truth)) < 4 * error


@pytest.mark.faults
def test_the_noise_scale_of_every_library_meets_the_truth_though_gradients_are_clipped(
    client, project, train
):
    assert "noise" not in ended(train("plain", "hugging-face", "lightning"))
    for run_id in (f"plain-{PASSES}-1", "hugging-face", "lightning"):
        readings = readings_of(client, project, run_id)
        assert readings[2:] == (SEQUENCES, PASSES * SEQUENCES)
        assert_meets_the_truth(readings)


@pytest.mark.faults
def test_ranks_measure_the_noise_before_and_after_they_share_their_gradients(client, project, train):
    assert "noise" not in ended(train("ranks", launcher=TWO_RANKS))
    for passes in (1, PASSES):
        readings = readings_of(client, project, f"plain-{passes}-2")
        assert readings[2:] == (SEQUENCES, 2 * passes * SEQUENCES)
        assert_meets_the_truth(readings)


def small_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    return model, torch.optim.SGD(model.parameters(), lr=1e-2)


def train_updates(model, optimizer, updates, passes, each=lambda: None):
    for update in range(updates):
        generator = torch.Generator().manual_seed(update)
        for _ in range(passes):
            model(torch.randn(4, 8, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        each()


def test_the_norms_are_those_of_the_first_micro_batch_and_of_the_whole_update():
    model, optimizer = small_model()
    norms, seen = GradientNorms(list(model.parameters()), is_shared=False), []

    def update_ended():
        seen.append(norms.update_ended())

    train_updates(model, optimizer, 3, 3, update_ended)
    assert seen[:2] == [None, None]
    again, optimizer = small_model()
    train_updates(again, optimizer, 2, 3)
    generator, totals = torch.Generator().manual_seed(2), []
    for _ in range(3):
        again(torch.randn(4, 8, generator=generator)).square().mean().backward()
        totals.append(torch.cat([weight.grad.flatten() for weight in again.parameters()]).norm())
    assert seen[2].passes == 3
    torch.testing.assert_close(seen[2].first, totals[0])
    torch.testing.assert_close(seen[2].last, totals[2])


def test_a_training_whose_noise_is_measured_computes_the_same_and_is_left_alone_in_the_end(
    client, place, said
):
    (alone, without), (beside, optimizer) = small_model(), small_model()
    train_updates(alone, without, 12, 2)
    with isoloss.init(config={"batch_tokens": 8}) as run:
        watched = isoloss.watch(run, optimizer, noise_scale=True)
        train_updates(beside, optimizer, 12, 2)
        watched.close()
    assert [text for text in said() if "noise" in text] == []
    for one, other in zip(alone.parameters(), beside.parameters(), strict=True):
        assert torch.equal(one, other)
        assert not other._post_accumulate_grad_hooks
    assert client.points.read(run.project, run.run_id)[SMALL].count() >= 1


@pytest.mark.parametrize(
    ("passes", "config", "reason"),
    [
        (1, {"batch_tokens": 8}, "accumulate gradients, or train on several"),
        (2, {"batch_tokens": 8, "precision": "mixed_float16"}, "scaler of losses"),
        (2, {}, "config batch_tokens= says them"),
    ],
)
def test_a_noise_that_cannot_be_measured_is_said_once_with_its_reason(
    client, place, said, passes, config, reason
):
    model, optimizer = small_model()
    with isoloss.init(config=config) as run:
        isoloss.watch(run, optimizer, noise_scale=True)
        train_updates(model, optimizer, 12, passes)
    [text] = [text for text in said() if "noise" in text]
    assert reason in text
    assert SMALL not in client.points.read(run.project, run.run_id)
    assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())


def test_a_backward_pass_in_parts_is_no_accumulation(place, said):
    from torch.utils.checkpoint import checkpoint

    model, optimizer = small_model()
    with isoloss.init(config={"batch_tokens": 8}) as run:
        isoloss.watch(run, optimizer, noise_scale=True)
        for _ in range(6):
            inputs = torch.randn(4, 8, requires_grad=True)
            checkpoint(
                model[2], checkpoint(model[:2], inputs, use_reentrant=True), use_reentrant=True
            ).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert any("reentrant" in text for text in said())


def test_what_measuring_costs_sets_how_often_it_is_done():
    model, optimizer = small_model()
    norms = GradientNorms(list(model.parameters()), is_shared=False)
    train_updates(model, optimizer, 30, 2, norms.update_ended)
    assert norms.every > LEAST_EVERY
    cost, pace = np.median(norms._costs), np.median(norms._paces)
    assert cost / (norms.every * pace) <= MOST_SHARE
