"""What became of trials, from Tune's results: who won, who failed and why, and the facts for the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genre.report import Trial
from genre.report.facts import Status
from ray_jobs import search

from ray import tune  # isort: skip


@dataclass(frozen=True)
class Winner:
    """The best configuration of an architecture, by validation macro F1."""

    architecture: str
    settings: dict[str, Any]
    valid_f1: float
    trials: int
    state: Any  # Tune's checkpoint of its last epoch


def winner(architecture: str, trials: list[tune.Result]) -> Winner | None:
    """The trial with the best epoch, or None when no trial of this architecture finished one.

    Trials that failed later on count only where all did.
    """
    mine = [trial for trial in trials if settings_of(trial)["model.name"] == architecture]
    scored = [trial for trial in mine if trial.checkpoint is not None]
    if not scored:
        return None
    sound = [trial for trial in scored if not failure(trial)] or scored
    best = max(sound, key=lambda trial: float(trial.metrics[search.METRIC]))
    return Winner(architecture, settings_of(best), float(best.metrics[search.METRIC]), len(mine), best.checkpoint)


def settings_of(trial: tune.Result) -> dict[str, Any]:
    """What this trial chose, by dotted key."""
    settings: dict[str, Any] = trial.config["run"]["settings"]
    return settings


def unfinished(trials: list[tune.Result], expected: int) -> bool:
    """Whether some trial was neither brought to an end nor failed: Tune returns early when it is interrupted."""
    ended = [trial for trial in trials if trial.error or (trial.metrics and trial.metrics.get("done"))]
    return len(ended) < expected


def failure(trial: tune.Result) -> str:
    """Why a trial failed, in a line; "" when it did not."""
    told = (trial.metrics or {}).get("failure")
    return str(told) if told else _last_line(trial.error) if trial.error else ""


def for_report(result: tune.Result, epochs: int) -> Trial:
    """A trial as the report shows it; `epochs` is what it was given."""
    settings, metrics, why = settings_of(result), result.metrics or {}, failure(result)
    reached = int(metrics.get("epoch", 0))
    ended: Status = "finished" if reached >= epochs else "stopped" if metrics.get("done") else "interrupted"
    return Trial(
        architecture=settings["model.name"],
        settings={key: value for key, value in settings.items() if key != "model.name"},
        status="failed" if why else ended,
        valid_f1=metrics.get(search.METRIC) if reached else None,
        epochs=reached,
        seconds=metrics.get("time_total_s"),
        error=why,
    )


def _last_line(error: Exception) -> str:
    """The last line of a trial's error, which names it, without the stack above."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
