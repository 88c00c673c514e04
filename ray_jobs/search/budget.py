"""How long a search takes on these machines, and what of it fits into `tune.minutes`.

A few steps of each architecture are timed where its trials will run. From these follow the minutes of the search, of
the final trainings and of judging. With `tune.minutes` each architecture gets an equal share of the time, and its
trainings are as long as that share allows: first the epochs shrink, to a third of the recipe, then the number of
trials, then that of seeds.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from genre.evaluation.changes import CHANGES
from genre.settings import Config
from genre.training import costs
from genre.training.costs import Cost, Workload

_BETWEEN_TRIALS = 1.0  # seconds from the end of a trial to the first step of the next
_REPORT = 0.05  # seconds in which a validated epoch is saved and reported
_CHANGED_SOUND = 0.003  # seconds of one core to change, decode and transform a second of sound
_JUDGING = 6.0  # seconds to fit the last of the baseline, to measure costs and to write the report
_SHORTEST = 1 / 3  # of the recipe's epochs: below it fewer trials are better than shorter ones
_SAFETY = 0.95  # of the time is planned: what runs at the same time never ends at the same time
_LENIENCE = 1.25  # times its expected time, after which a search stops an architecture
_HALVINGS = 30  # of the interval in which the share of an architecture is sought


@dataclass(frozen=True)
class Plan:
    """What a search does: epochs of each architecture, trials of each, and seeds of each winner."""

    epochs: dict[str, int]
    trials: int
    seeds: int
    minutes: float = 0.0  # of training, over which the trials of one architecture are stopped; 0: none are

    @classmethod
    def of(cls, config: Config, architectures: Iterable[str]) -> Plan:
        """The plan of the settings alone, without a limit of time."""
        return cls(dict.fromkeys(architectures, config.train.epochs), config.tune.trials, config.tune.seeds)


@dataclass(frozen=True)
class Estimate:
    """Seconds of wall time."""

    search: float
    finals: float
    judging: float

    @property
    def total(self) -> float:
        """Seconds from the first trial to the report."""
        return self.search + self.finals + self.judging


@dataclass(frozen=True)
class Forecast:
    """Predicts the time of plans for one corpus, from the measured costs of its architectures.

    `places` is the number of trials that run at a time.
    """

    config: Config
    workload: Workload
    costs: Mapping[str, Cost]
    places: int

    def full(self) -> Plan:
        """The plan without a limit of time."""
        return Plan.of(self.config, self.costs)

    def estimate(self, plan: Plan) -> Estimate:
        """Expected wall time of `plan`. Winners are taken to have run to their end, so that one seed is there."""
        only = replace(plan, seeds=1)
        full = [self._seconds(name, epochs) for name, epochs in plan.epochs.items()]
        searched = [self._work(name, epochs, only) for name, epochs in plan.epochs.items()]
        finals = [(plan.seeds - 1) * (seconds + _BETWEEN_TRIALS) for seconds in full]
        return Estimate(self._side_by_side(searched, full), self._side_by_side(finals, full), self._judging(plan))

    def shares(self, plan: Plan) -> dict[str, float]:
        """Share of each architecture in the time of the trainings."""
        work = {name: self._work(name, epochs, plan) for name, epochs in plan.epochs.items()}
        return {name: seconds / sum(work.values()) for name, seconds in work.items()}

    def fit(self, seconds: float) -> Plan:
        """The plan with the longest trainings that is expected to end within `seconds`; at least one epoch of each."""
        full = self.full()
        fewer = [replace(full, trials=trials) for trials in range(full.trials, 0, -1)]
        fewer += [replace(full, trials=1, seeds=seeds) for seeds in range(full.seeds - 1, 0, -1)]
        plans = (self._longest(plan, seconds) for plan in fewer)
        plan = next((plan for plan in plans if self._is_long(plan)), self._longest(fewer[-1], seconds))
        searched = max(self._work(name, epochs, replace(plan, seeds=1)) for name, epochs in plan.epochs.items())
        return replace(plan, minutes=_LENIENCE * searched / 60)

    def halving(self, plan: Plan) -> list[str]:
        """Settings that would about halve the expected time of `plan`, the mildest first."""
        half = 0.55 * self.estimate(plan).total
        name, share = max(self.shares(plan).items(), key=lambda item: item[1])
        others = {key: n for key, n in plan.epochs.items() if key != name}
        choices = {
            f"tune.trials={plan.trials // 2}": replace(plan, trials=max(1, plan.trials // 2)),
            f"tune.architectures=[{', '.join(others)}] ({name} takes {share:.0%})": replace(plan, epochs=others),
            f"train.epochs={self.config.train.epochs // 2}": replace(
                plan, epochs={key: max(1, n // 2) for key, n in plan.epochs.items()}
            ),
        }
        return [text for text, other in choices.items() if other.epochs and self.estimate(other).total <= half]

    def _longest(self, plan: Plan, seconds: float) -> Plan:
        """`plan` with the most epochs that fit, where each architecture may take an equal share of the time.

        What an architecture does not need, since its trainings are as long as the recipe, goes to the others.
        """
        low, high = 0.0, seconds * self.places
        for _ in range(_HALVINGS):
            share = (low + high) / 2
            if self.estimate(self._within(plan, share)).total <= _SAFETY * seconds:
                low = share
            else:
                high = share
        return self._within(plan, low)

    def _within(self, plan: Plan, share: float) -> Plan:
        """`plan` with the most epochs of the recipe that take each architecture at most `share` seconds; at least 1."""
        epochs = {name: self._epochs(name, share, plan) for name in plan.epochs}
        return replace(plan, epochs=epochs)

    def _epochs(self, name: str, share: float, plan: Plan) -> int:
        counts = range(1, self.config.train.epochs + 1)
        return max(1, bisect.bisect_right(counts, share, key=lambda epochs: self._work(name, epochs, plan)))

    def _is_long(self, plan: Plan) -> bool:
        return all(epochs >= _SHORTEST * self.config.train.epochs for epochs in plan.epochs.values())

    def _work(self, name: str, epochs: int, plan: Plan) -> float:
        """Seconds of one place for all trainings of an architecture."""
        one = self._seconds(name, epochs)
        trainings = plan.trials * self._kept(plan.trials, epochs) + plan.seeds - 1
        return trainings * one + (plan.trials + plan.seeds - 1) * _BETWEEN_TRIALS

    def _kept(self, trials: int, epochs: int) -> float:
        """Expected share of the epochs of `trials` trials that early stopping lets them do.

        Of k trials at a milestone about one in `tune.reduction` goes on, and the first to arrive always.
        """
        milestone = min(self.config.tune.grace_epochs, epochs)
        passed, done = float(trials), float(trials * milestone)
        while milestone < epochs:
            passed = sum(max(1 / k, 1 / self.config.tune.reduction) for k in range(1, round(passed) + 1))
            following = min(epochs, math.ceil(milestone * self.config.tune.reduction))
            done += passed * (following - milestone)
            milestone = following
        return done / (trials * epochs)

    def _seconds(self, name: str, epochs: int) -> float:
        """Seconds of one training."""
        settings, workers = self.config.train.model_copy(update={"epochs": epochs}), self.config.tune.workers_per_trial
        reports = costs.validations(settings, self.workload) * _REPORT
        return costs.trial_seconds(settings, self.workload, self.costs[name], workers) + reports

    def _side_by_side(self, work: list[float], trials: list[float]) -> float:
        """Wall time of `work` on all places; towards the end some of them wait for the last trial."""
        if not any(work):
            return 0.0
        waiting = sum(trials) / len(trials) * (1 - 1 / self.places) / 2
        return max(sum(work) / self.places + waiting, max(trials))

    def _judging(self, plan: Plan) -> float:
        changes = len(CHANGES) if self.config.tune.robustness else 0
        answers = sum(costs.answer_seconds(self.config.train, self.workload, self.costs[name]) for name in plan.epochs)
        sound = self.workload.test * self.workload.shape.frames * self.workload.shape.frame_seconds
        work = plan.seeds * answers * (1 + changes) + changes * sound * _CHANGED_SOUND
        return work / self.places + _JUDGING


def seeds_within(seconds: float, most: int, places: int, trainings: Sequence[float], remaining: Sequence[float]) -> int:
    """How many seeds of each winner, at most `most`, can be trained in `seconds` on all places.

    `trainings` are the seconds of one training of each winner, `remaining` those that its first seed still needs. 0:
    not even these fit.
    """
    for count in range(most, 0, -1):
        work = sum(remaining) + (count - 1) * sum(trainings)
        longest = max([*remaining, *(trainings if count > 1 else ())])
        if not work or max(work / places, longest) <= seconds:
            return count
    return 0
