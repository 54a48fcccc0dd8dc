"""One proxy from beginning to end: a curve, without a service."""

from __future__ import annotations

from typing import Any

from isoloss.observations import Curve
from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.data import TokenData, load_data
from isoloss.proxies.training import Training


def train_run(
    config: ProxyConfig,
    data: TokenData | None = None,
    *,
    device: str = "cpu",
    run_id: str | None = None,
    target: str = "loss",
) -> Curve:
    """Train a proxy and return its curve, which `isoloss.fit` takes.

    `data` is that of `config.data` unless it is given. Notes of the training and a divergence stand in the curve's
    notes. Raises InvalidInput for data or a device that cannot serve, before any training.
    """
    data = load_data(config.data) if data is None else data
    training = Training.start(config, data, device)
    columns: dict[str, Any] = training.advance()
    run = config.run_specification(data.vocab_size)
    notes = list(training.notes)
    if training.status == "diverged":
        notes.append(f"the training diverged at step {training.step}")
    name = run_id or f"{config.optimizer}-{config.width}x{config.depth}-{config.peak_lr:g}-{config.seed}"
    return Curve.from_columns(
        name, columns, schedule=run["schedule"], config=run["config"], target=target, notes=tuple(notes)
    )
