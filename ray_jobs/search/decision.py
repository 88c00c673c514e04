"""Decides what a search trains, and stores the decision in OUTPUT/tune/plans for a resumed search.

A resumed search that measured the architectures again would get other times, plan other epochs and reuse no trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from genre.config import fingerprint
from genre.settings import Config, TuneSettings
from genre.storage import Location
from genre.training.costs import Workload
from genre.training.experiment import EXECUTION_SETTINGS, Experiment
from genre.wording import duration, plural
from ray_jobs.engine import cli
from ray_jobs.search import budget, timing
from ray_jobs.search.budget import Forecast
from ray_jobs.search.plan import Plan
from ray_jobs.search.resources import TrialResources
from ray_jobs.search.results import Winner

# settings of `tune` that do not affect the epochs of a plan, or that may differ when a search is resumed
_NOT_IN_KEY = {
    "concurrent",
    "mlflow",
    "cpus_per_trial",
    "gpus_per_trial",
    "workers_per_trial",
    "trials",
    "seeds",
    "defaults",
}


@dataclass(frozen=True)
class Decision:
    """The plan of a search, and what is needed to follow or change it later. Stored as JSON."""

    plan: Plan
    judging: float  # seconds that judging the models is expected to take, robustness included
    asked: tuple[int, int]  # the settings tune.trials and tune.seeds; the plan may have fewer
    seeds_decided: bool = False  # plan.seeds is final: it was fitted to the time left after the search
    failures: dict[str, str] = field(default_factory=dict)  # why architectures are left out
    robustness: float = 0.0  # the seconds of `judging` that robustness takes
    robustness_tracks: int = 0  # test tracks that are scored on changed audio in these seconds
    asked_defaults: bool = False  # the setting tune.defaults; the plan may leave them out


@dataclass(frozen=True)
class Decider:
    """Decides what one search trains, and stores the decision in `file`, which `file_of` names."""

    file: Location
    experiments: Mapping[str, Experiment]  # by architecture, see `space.experiments`
    settings: TuneSettings
    workload: Workload
    resources: TrialResources

    def decide(self, known: Forecast | None) -> Decision:
        """Return the decision of an earlier run of the same search; if there is none, decide, print and store.

        `known` is a forecast that was measured and printed before. Ray must be connected. Raises like `timing.measure`.
        """
        asked = (self.settings.trials, self.settings.seeds)
        if self.file.exists():
            kept = self.file.read_json()
            decision = Decision(**kept | {"plan": Plan(**kept["plan"]), "asked": tuple(kept["asked"])})
            for line in timing.left_out(decision.failures):
                cli.say(f"tune: {line}; delete {self.file} to decide again")
            is_same = (decision.asked, decision.asked_defaults) == (asked, self.settings.defaults)
            return decision if is_same else self._changed(decision)
        forecast = known or timing.measure(self.experiments, self.settings, self.workload, self.resources)
        forecast = replace(forecast, workload=self.workload)
        plan = forecast.plan()
        if known is None:
            timing.show(forecast, plan)
        expected = forecast.estimate(plan)
        return self._keep(
            Decision(
                plan,
                expected.judging,
                asked,
                failures=forecast.left_out(plan),
                robustness=expected.robustness,
                robustness_tracks=forecast.robustness_tracks(plan),
                asked_defaults=self.settings.defaults,
            )
        )

    def finals(self, decision: Decision, winners: Sequence[Winner], defaults: Sequence[Winner], seconds: float) -> Plan:
        """Return the plan with the seeds and the defaults, at most those planned, for which tune.minutes has time left.

        `defaults` are the trials of the configured settings, of which other settings won. `seconds` is the time spent
        so far. The defaults are left out where there is no time for a seed of everything, and there are 0 seeds where
        none is left to finish the winners. This is decided once and stored for a resumed search.
        """
        plan = decision.plan
        if not self.settings.minutes or decision.seeds_decided:
            return plan
        judged = defaults if plan.defaults else []
        seeds = self._seeds(decision, [*winners, *judged], seconds)
        if not seeds and judged:
            cli.say(f"tune: tune.minutes={self.settings.minutes:g} leaves no time to train the configured settings")
            plan = replace(plan, defaults=False)
            seeds = self._seeds(decision, winners, seconds)
        if seeds < plan.seeds:
            left = f"{seeds} of {plural(plan.seeds, 'seed')}" if seeds else "no further training"
            cli.say(f"tune: tune.minutes={self.settings.minutes:g} leaves time for {left}")
        plan = replace(plan, seeds=seeds)
        self._keep(replace(decision, plan=plan, seeds_decided=True))
        return plan

    def _seeds(self, decision: Decision, chosen: Sequence[Winner], seconds: float) -> int:
        """Return the number of seeds of each of the `chosen` trials for which there is time."""
        sample = self.settings.sample
        is_trial = sample == 1 and not self.settings.folds  # the trial of a winner is the training with the first seed
        trainings = [winner.training_seconds / sample for winner in chosen]
        return budget.seeds_within(
            60 * self.settings.minutes - seconds - decision.judging,
            decision.plan.seeds,
            self.resources.concurrent_trials(),
            trainings=trainings,
            remaining=[winner.remaining_seconds for winner in chosen] if is_trial else trainings,
        )

    def robustness_tracks(self, decision: Decision, seconds: float) -> int:
        """Return the number of test tracks, at most those planned, whose robustness fits into tune.minutes.

        `seconds` is the time spent so far. Exceeding the limit by `timing.TOO_LONG` is allowed. Returns 0 if not even
        one track of each genre fits.
        """
        planned = decision.robustness_tracks
        if not self.settings.minutes or not decision.robustness:
            return planned
        scoring = decision.judging - decision.robustness
        left = timing.TOO_LONG * 60 * self.settings.minutes - seconds - scoring
        fitting = min(planned, int(planned * left / decision.robustness))
        return fitting if fitting >= min(planned, self.workload.classes) else 0

    def _changed(self, earlier: Decision) -> Decision:
        """Return the earlier decision with other trials or seeds, and the same epochs, so that trials are reused."""
        trials, seeds, defaults = self.settings.trials, self.settings.seeds, self.settings.defaults
        has_other_counts = earlier.asked != (trials, seeds)
        plan = replace(
            earlier.plan,
            trials=trials if trials != earlier.asked[0] else earlier.plan.trials,
            seeds=seeds if seeds != earlier.asked[1] else max(1, earlier.plan.seeds),
            defaults=defaults,
        )
        if self.settings.minutes and has_other_counts:
            counts = f"{plural(plan.trials, 'trial')} and {plural(plan.seeds, 'seed')} of each"
            cli.say(f"tune: {counts}, as asked, with the epochs of the earlier run; tune.minutes does not limit them")
        decided = earlier.seeds_decided or has_other_counts
        return self._keep(
            replace(earlier, plan=plan, asked=(trials, seeds), asked_defaults=defaults, seeds_decided=decided)
        )

    def _keep(self, decision: Decision) -> Decision:
        self.file.write_json(asdict(decision))
        return decision


def file_of(config: Config, workload: Workload, contents: str) -> Location:
    """Return the file of a search's decision: its name is a hash of what the epochs of a plan depend on.

    `contents` is the hash of the features' contents. The machines are left out, so that a search can be resumed on
    others.
    """
    train = config.train.model_dump(mode="json", exclude=EXECUTION_SETTINGS)
    tune = config.tune.model_dump(mode="json", exclude=_NOT_IN_KEY)
    rest = {"architectures": config.architectures, "seed": config.seed, "workload": asdict(workload)}
    key = fingerprint(train, tune, rest | {"features": contents})
    return Location.of(config.output) / "tune" / "plans" / f"{key}.json"


def overrun_notes(minutes: float, seconds: float) -> list[str]:
    """Print and return a note for the report if the search took much longer than tune.minutes."""
    if not minutes or seconds <= timing.TOO_LONG * 60 * minutes:
        return []
    note = f"Search and judging took {duration(seconds)}, longer than tune.minutes={minutes:g}."
    cli.say(f"tune: {note}")
    return [note]
