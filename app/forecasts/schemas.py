"""Forecasts and alarms as the API shows them."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from app.schemas import Document, Name, Number, Step, Time
from store.tables import Alarm, Forecast, Run

AlarmKind = Literal["left_band", "diverged", "silent", "resumed"]


class AlarmDocument(Document):
    """Something about a run that its owner should know."""

    id: uuid.UUID = Field(description="The alarm.")
    kind: AlarmKind = Field(
        description="`left_band`: the run left the band of a forecast; `diverged`: its loss is not finite; "
        "`silent`: no points come any more; `resumed`: they come again."
    )
    step: Step | None = Field(description="Where the run stood.", examples=[1200])
    message: str = Field(
        description="What happened, in words.",
        examples=["no point has come for 6.2 min; they came every 4 s"],
    )
    at: Time = Field(description="When it was given.")
    over_at: Time | None = Field(description="When its cause was over; null while it lasts.")

    @classmethod
    def of(cls, alarm: Alarm) -> AlarmDocument:
        """The alarm as the API shows it."""
        shown = {name: getattr(alarm, name) for name in ("id", "kind", "step", "message", "over_at")}
        return cls(**shown, at=alarm.created_at)


class ExpectedDocument(Document):
    """The rest of a curve as it is expected, at some of its steps."""

    steps: Sequence[int] = Field(description="Steps, from where the run stands to its end.")
    value: Sequence[Number] = Field(description="The expected loss at each, in nats.")
    lower: Sequence[Number] = Field(description="Lower end of the band at each.")
    upper: Sequence[Number] = Field(description="Upper end of the band at each.")

    @classmethod
    def of(cls, expected: Mapping[str, Any]) -> ExpectedDocument:
        """The same, with whole steps."""
        return cls(**{**expected, "steps": [int(step) for step in expected["steps"]]})


class TrailDocument(Document):
    """What a forecast said before."""

    at: Time = Field(description="When it was made.")
    step: Step = Field(description="Where the run stood.", examples=[800])
    value: Number | None = Field(description="The final loss, in nats.", examples=[2.934])
    lower: Number | None = Field(description="Lower end of its band.", examples=[2.902])
    upper: Number | None = Field(description="Upper end of its band.", examples=[2.971])


class BriefForecastDocument(Document):
    """The last forecast of a run."""

    run_id: Name = Field(description="The run.", examples=["wsd-124m-1"])
    target: str = Field(description="The column that is forecast.", examples=["val_loss"])
    step: Step = Field(description="The last step that it has seen.", examples=[1200])
    last_step: Step = Field(description="Where the run's schedule ends.", examples=[5000])
    value: Number | None = Field(
        description="The final loss, in nats; null where the data do not tell.", examples=[2.913]
    )
    lower: Number | None = Field(description="Lower end of its band.", examples=[2.897])
    upper: Number | None = Field(description="Upper end of its band.", examples=[2.933])
    level: float = Field(description="How often such bands hold the final loss.", examples=[0.9])
    reasons: Sequence[str] = Field(description="Why there is no value, or what weakens it.", examples=[[]])
    law: str | None = Field(description="The law that it rests on.", examples=["lr_annealing"])
    n_runs: int = Field(description="Finished runs that it rests on.", examples=[12])
    n_families: int = Field(
        description="How many of them are independent: branches of one trunk count once.", examples=[9]
    )
    left_band: str | None = Field(
        description="In words, where the run has left the band of an earlier forecast; null where it has not."
    )
    updated_at: Time = Field(description="When it was made.")
    alarms: Sequence[AlarmDocument] = Field(description="Its alarms: in a list those that are not over.")

    @classmethod
    def brief(cls, run: Run, forecast: Forecast, alarms: Sequence[Alarm]) -> BriefForecastDocument:
        """The forecast as lists show it."""
        return cls(**_shown(BriefForecastDocument, run, forecast, alarms))


class ForecastDocument(BriefForecastDocument):
    """The last forecast of a run, the rest of its curve, and what was forecast before."""

    expected: ExpectedDocument | None = Field(
        description="The rest of the curve; null where it is not known."
    )
    trail: Sequence[TrailDocument] = Field(
        description="The forecasts so far, the oldest first; of many the older ones are thinned."
    )

    @classmethod
    def of(cls, run: Run, forecast: Forecast, alarms: Sequence[Alarm]) -> ForecastDocument:
        """The forecast in full."""
        document = forecast.document or {}
        trail = [TrailDocument(**_line(one)) for one in forecast.trail]
        expected = document.get("expected")
        rest = None if expected is None else ExpectedDocument.of(expected)
        return cls(**_shown(BriefForecastDocument, run, forecast, alarms), expected=rest, trail=trail)


def _shown(kind: type[Document], run: Run, forecast: Forecast, alarms: Sequence[Alarm]) -> dict[str, Any]:
    document = forecast.document or {}
    own = {"run_id", "updated_at", "alarms"}
    shown = {name: document[name] for name in kind.model_fields if name not in own}
    given = [AlarmDocument.of(alarm) for alarm in alarms]
    return {**shown, "run_id": run.run_id, "updated_at": forecast.updated_at, "alarms": given}


def _line(line: dict[str, Any]) -> dict[str, Any]:
    shown = {name: line[name] for name in ("step", "value", "lower", "upper")}
    return {**shown, "at": dt.datetime.fromisoformat(line["at"])}
