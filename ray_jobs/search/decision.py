"""Decides what a search trains. The decision is kept in OUTPUT/tune/plans, so that a resumed search follows it too.

Without it a resumed search would measure the architectures again, and with other times plan other epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from genre.config import fingerprint
from genre.settings import Config
from genre.storage import Location
from genre.training.costs import Workload
from genre.training.experiment import EXECUTION_SETTINGS
from genre.wording import duration, plural
from ray_jobs.engine import cli
from ray_jobs.search import budget, timing
from ray_jobs.search.budget import Forecast
from ray_jobs.search.plan import Plan
from ray_jobs.search.resources import TrialResources
from ray_jobs.search.results import Winner

# settings of the search on which its plan does not depend, or that may change between its runs
_NOT_IN_KEY = {"concurrent", "mlflow", "cpus_per_trial", "gpus_per_trial", "workers_per_trial", "trials", "seeds"}


@dataclass(frozen=True)
class Decision:
    """The plan of a search, and what it was decided from."""

    plan: Plan
    judging: float  # seconds that judging the models is expected to take
    asked: tuple[int, int]  # tune.trials and tune.seeds, of which the plan may have fewer
    seeds_decided: bool = False  # after the search, by the time that was left
    failures: dict[str, str] = field(default_factory=dict)  # why architectures are left out


@dataclass(frozen=True)
class Decider:
    """Decides on the search of one configuration on one set of features, whose hash is `contents`."""

    config: Config
    workload: Workload
    contents: str
    resources: TrialResources

    def decide(self, known: Forecast | None = None) -> Decision:
        """Return what the search does, and print it; or return what an earlier run of the same search decided.

        `known` is a forecast that was printed before. Ray must be connected. Raises like `timing.measure`.
        """
        asked = (self.config.tune.trials, self.config.tune.seeds)
        if self._file.exists():
            kept = self._file.read_json()
            decision = Decision(**kept | {"plan": Plan(**kept["plan"]), "asked": tuple(kept["asked"])})
            for name, reason in decision.failures.items():
                cli.console().print(f"tune: {name} is left out: {reason}; delete {self._file} to try it again")
            return decision if decision.asked == asked else self._changed(decision)
        forecast = known or timing.measure(self.config, self.workload, self.resources)
        forecast = replace(forecast, workload=self.workload)
        plan = forecast.plan()
        if known is None:
            timing.show(forecast, plan)
        return self._keep(Decision(plan, forecast.estimate(plan).judging, asked, failures=dict(forecast.failures)))

    def seeds(self, decision: Decision, winners: Sequence[Winner], seconds: float) -> int:
        """Return the seeds of each winner: those of the plan, or after `seconds` those that tune.minutes still allows.

        Returns 0 where no time is left to finish the winners. It is decided once; a resumed search keeps to it.
        """
        plan, limit = decision.plan, 60 * self.config.tune.minutes
        if not limit or decision.seeds_decided:
            return plan.seeds
        sample = self.config.tune.sample
        trainings = [winner.training_seconds / sample for winner in winners]
        seeds = budget.seeds_within(
            limit - seconds - decision.judging,
            plan.seeds,
            self.resources.concurrent_trials(),
            trainings=trainings,
            remaining=[winner.remaining_seconds for winner in winners] if sample == 1 else trainings,
        )
        if seeds < plan.seeds:
            left = f"{seeds} of {plural(plan.seeds, 'seed')}" if seeds else "no further training"
            cli.console().print(f"tune: tune.minutes={self.config.tune.minutes:g} leaves time for {left}")
        self._keep(replace(decision, plan=replace(plan, seeds=seeds), seeds_decided=True))
        return seeds

    def _changed(self, earlier: Decision) -> Decision:
        """Return the earlier decision with other trials or seeds. The epochs stay, so that its trials are reused."""
        trials, seeds = self.config.tune.trials, self.config.tune.seeds
        plan = replace(
            earlier.plan,
            trials=trials if trials != earlier.asked[0] else earlier.plan.trials,
            seeds=seeds if seeds != earlier.asked[1] else max(1, earlier.plan.seeds),
        )
        if self.config.tune.minutes:
            counts = f"{plural(plan.trials, 'trial')} and {plural(plan.seeds, 'seed')} of each"
            cli.console().print(
                f"tune: {counts}, as asked, with the epochs of the earlier run; tune.minutes does not limit them"
            )
        return self._keep(replace(earlier, plan=plan, asked=(trials, seeds), seeds_decided=True))

    @property
    def _file(self) -> Location:
        """The file of the decision, named after everything that the epochs of a plan depend on except the machines."""
        config = self.config
        train = config.train.model_dump(mode="json", exclude=EXECUTION_SETTINGS)
        tune = config.tune.model_dump(mode="json", exclude=_NOT_IN_KEY)
        rest = {"architectures": config.architectures, "seed": config.seed, "workload": asdict(self.workload)}
        key = fingerprint(train, tune, rest | {"features": self.contents})
        return Location.of(config.output) / "tune" / "plans" / f"{key}.json"

    def _keep(self, decision: Decision) -> Decision:
        self._file.write_json(asdict(decision))
        return decision


def overrun_notes(minutes: float, seconds: float) -> list[str]:
    """Print and return a note for the report where the search took much longer than tune.minutes."""
    if not minutes or seconds <= timing.TOO_LONG * 60 * minutes:
        return []
    note = f"The search took {duration(seconds)}, longer than tune.minutes={minutes:g}."
    cli.console().print(f"tune: {note}")
    return [note]
