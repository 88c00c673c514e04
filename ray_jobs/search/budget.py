"""Predicts how long a search takes, and finds the longest plan that fits into `tune.minutes`.

The prediction is computed from the measured cost of a step of each architecture. With `tune.minutes` each architecture
gets an equal share of the time. Where this is too short for the settings, first the epochs are reduced, to a third of
`train.epochs`, then the number of trials, then the number of seeds. Where even that is too short, the slowest
architectures are left out, unless `tune.architectures` names them: a network of very few epochs cannot be judged.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from genre.evaluation.changes import CHANGES
from genre.retrieval.neighbours import MOST_TRACKS
from genre.settings import TrainSettings, TuneSettings
from genre.training import costs
from genre.training.costs import Cost, Workload
from genre.wording import plural
from ray_jobs.search.plan import Plan

_BETWEEN_TRIALS = 1.0  # seconds from the end of a trial to the first step of the next
_REPORT = 0.05  # seconds to save and report a validated epoch
_CHANGED_AUDIO = 0.003  # seconds of one core to change, decode and transform a second of audio
_READ_GB = 0.15  # seconds of one core to read a GB of clips of tracks that are not used, from memory
_PASSES = 2  # over the files of clips: of the test tracks, and of those that vote as nearest neighbours
_JUDGING = 9.0  # seconds to start two passes, to finish fitting the baseline, to measure costs and to write the report
_ROBUSTNESS = 0.2  # of tune.minutes: rather than less training, fewer tracks are scored on changed audio
_SHORTEST = 1 / 3  # of train.epochs: rather than shorter trials, there are fewer
_SAFETY = 0.95  # share of the time that is planned, since concurrent trials do not end at the same time
_TOLERANCE = 1.25  # an architecture is stopped after its expected time, times this
_BISECTIONS = 30  # to find the share of time of an architecture


@dataclass(frozen=True)
class WallTime:
    """Expected wall time of the parts of a search, in seconds; `robustness` is a part of `judging`."""

    search: float
    finals: float
    judging: float
    robustness: float

    @property
    def total(self) -> float:
        """Seconds from the first trial to the report."""
        return self.search + self.finals + self.judging


@dataclass(frozen=True)
class Forecast:
    """Predicts how long plans take for one corpus, from the measured costs of the architectures.

    `concurrent` is the number of trials that run at a time. `failures` has the reason for each architecture without
    costs, by name.
    """

    train: TrainSettings
    tune: TuneSettings
    workload: Workload
    costs: Mapping[str, Cost]
    concurrent: int
    on_gpus: bool = False
    failures: Mapping[str, str] = field(default_factory=dict)

    def plan(self) -> Plan:
        """Return the plan of the settings; if tune.minutes is set, the longest one that fits into it."""
        return self.fit(60 * self.tune.minutes) if self.tune.minutes else self.full()

    def full(self) -> Plan:
        """Return the plan of the settings without a time limit."""
        return Plan.of(self.train, self.tune, self.costs)

    def estimate(self, plan: Plan) -> WallTime:
        """Return the expected wall time of `plan`, assuming that early stopping does not stop the best trials."""
        trial = [self._seconds(name, epochs, self.searched) for name, epochs in plan.epochs.items()]
        trial = [max(1, self.tune.folds) * seconds for seconds in trial]
        final = [self._seconds(name, epochs, self.all_clips) for name, epochs in plan.epochs.items()]
        searched = [self._search_work(name, epochs, plan) for name, epochs in plan.epochs.items()]
        finals = [self._final_work(name, epochs, plan) for name, epochs in plan.epochs.items()]
        scoring, robustness = self._judging(plan)
        return WallTime(
            self._wall_time(searched, trial), self._wall_time(finals, final), scoring + robustness, robustness
        )

    @property
    def searched(self) -> Workload:
        """The clips that a training of the search sees: those of tune.sample, or of one of tune.folds."""
        shares = (self.workload.train * self.tune.sample, self.workload.valid * self.tune.sample)
        if self.tune.folds:
            held_out = self.all_clips.train / self.tune.folds
            shares = (self.all_clips.train - held_out, held_out)
        train, valid = (max(1, round(clips)) for clips in shares)
        return replace(self.workload, train=train, valid=valid)

    @property
    def all_clips(self) -> Workload:
        """The clips that a final training sees: with tune.folds all that are not test, without validation."""
        train, valid = self.workload.train, self.workload.valid
        return replace(self.workload, train=train + valid, valid=0) if self.tune.folds else self.workload

    def shares(self, plan: Plan) -> dict[str, float]:
        """Return the share of each architecture in the time of all trainings."""
        total = self.training_seconds(plan)
        return {name: self._work(name, epochs, plan) / total for name, epochs in plan.epochs.items()}

    def training_seconds(self, plan: Plan) -> float:
        """Return the seconds of all trainings of `plan`, one after another."""
        return sum(self._work(name, epochs, plan) for name, epochs in plan.epochs.items())

    def fit(self, seconds: float) -> Plan:
        """Return the plan that is expected to end within `seconds`, with at least one epoch.

        Epochs are reduced first, to a third of train.epochs, then trials, then seeds. At last the slowest architectures
        are left out, as long as any would train for fewer than `fewest_epochs`, unless tune.architectures names them.
        """
        full = self.full()
        fewer = [replace(full, trials=trials) for trials in range(full.trials, 0, -1)]
        fewer += [replace(full, trials=1, seeds=seeds) for seeds in range(full.seeds - 1, 0, -1)]
        plans = (self._longest(plan, seconds) for plan in fewer)
        plan = next((plan for plan in plans if self._is_long(plan)), None) or self._fastest(fewer[-1], seconds)
        searched = max(self._search_work(name, epochs, plan) for name, epochs in plan.epochs.items())
        return replace(plan, minutes=_TOLERANCE * searched / 60)

    @property
    def fewest_epochs(self) -> int:
        """The epochs before which early stopping stops no trial, if `train.epochs` has as many."""
        return min(self.tune.grace_epochs, self.train.epochs)

    def fastest(self) -> Plan:
        """Return the shortest plan: one epoch, one trial and one seed of the fastest architecture."""
        plan = replace(self.full(), epochs=dict.fromkeys(self.costs, 1), trials=1, seeds=1)
        name = min(plan.epochs, key=lambda name: self._work(name, 1, plan))
        return replace(plan, epochs={name: 1})

    def enough_minutes(self) -> float:
        """Return a tune.minutes, in tenths, in which each network that `_fastest` keeps trains `fewest_epochs`."""
        tenths, shortest = math.ceil(self.estimate(self.fastest()).total / 6), replace(self.full(), trials=1, seeds=1)
        while True:
            longer = replace(self, tune=self.tune.model_copy(update={"minutes": tenths / 10}))  # more robustness tracks
            if min(longer._fastest(shortest, 6 * tenths).epochs.values()) >= self.fewest_epochs:
                return tenths / 10
            tenths += max(1, tenths // 8)

    def left_out(self, plan: Plan) -> dict[str, str]:
        """Return why architectures are not in `plan`, by name."""
        why = (
            f"tune.minutes={self.tune.minutes:g} is too short for {plural(self.fewest_epochs, 'epoch')}; "
            "to train it anyway, name it in tune.architectures"
        )
        return dict(self.failures) | {name: why for name in self.costs if name not in plan.epochs}

    def halving(self, plan: Plan) -> list[str]:
        """Return settings, as on the command line, each of which would about halve the expected time of `plan`."""
        half = 0.55 * self.estimate(plan).total
        name, share = max(self.shares(plan).items(), key=lambda item: item[1])
        others = {key: n for key, n in plan.epochs.items() if key != name}
        choices = {
            f"tune.trials={plan.trials // 2}": replace(plan, trials=max(1, plan.trials // 2)),
            f"tune.architectures=[{', '.join(others)}] ({name} takes {share:.0%})": replace(plan, epochs=others),
            f"train.epochs={self.train.epochs // 2}": replace(
                plan, epochs={key: max(1, n // 2) for key, n in plan.epochs.items()}
            ),
        }
        return [text for text, other in choices.items() if other.epochs and self.estimate(other).total <= half]

    def _fastest(self, plan: Plan, seconds: float) -> Plan:
        """Return `plan` with the architectures that can train for `fewest_epochs`, or with the fastest one."""
        while True:
            longest = self._longest(plan, seconds)
            is_chosen = bool(self.tune.architectures) or len(plan.epochs) == 1
            if is_chosen or min(longest.epochs.values()) >= self.fewest_epochs:
                return longest
            slowest = max(plan.epochs, key=lambda name: self._work(name, 1, plan))
            plan = replace(plan, epochs={name: epochs for name, epochs in plan.epochs.items() if name != slowest})

    def _longest(self, plan: Plan, seconds: float) -> Plan:
        """Return `plan` with the most epochs that fit if each architecture has an equal share of the time.

        An architecture that reaches `train.epochs` leaves the rest of its share to the others.
        """
        low, high = 0.0, seconds * self.concurrent
        for _ in range(_BISECTIONS):
            share = (low + high) / 2
            if self.estimate(self._within(plan, share)).total <= _SAFETY * seconds:
                low = share
            else:
                high = share
        return self._within(plan, low)

    def _within(self, plan: Plan, share: float) -> Plan:
        """Return `plan` with the most epochs, at least one, so that no architecture takes more than `share` seconds."""
        epochs = {name: self._epochs(name, share, plan) for name in plan.epochs}
        return replace(plan, epochs=epochs)

    def _epochs(self, name: str, share: float, plan: Plan) -> int:
        counts = range(1, self.train.epochs + 1)
        return max(1, bisect.bisect_right(counts, share, key=lambda epochs: self._work(name, epochs, plan)))

    def _is_long(self, plan: Plan) -> bool:
        return all(epochs >= _SHORTEST * self.train.epochs for epochs in plan.epochs.values())

    def _work(self, name: str, epochs: int, plan: Plan) -> float:
        """Return the seconds of all trainings of an architecture, one after another."""
        return self._search_work(name, epochs, plan) + self._final_work(name, epochs, plan)

    def _search_work(self, name: str, epochs: int, plan: Plan) -> float:
        trained, complete = self._kept(plan.trials, epochs)  # of the first fold; the search stops no trial after it
        trainings = trained + complete * max(0, self.tune.folds - 1)
        return trainings * self._seconds(name, epochs, self.searched) + plan.trials * _BETWEEN_TRIALS

    def _final_work(self, name: str, epochs: int, plan: Plan) -> float:
        # the trial of a final's settings is the first seed, unless it saw only a part of the tracks
        trainings = plan.seeds - (self.tune.sample == 1 and not self.tune.folds)
        return plan.finals * trainings * (self._seconds(name, epochs, self.all_clips) + _BETWEEN_TRIALS)

    def _kept(self, trials: int, epochs: int) -> tuple[float, float]:
        """Return the complete trainings that `trials` amount to despite early stopping, and how many are not stopped.

        Of the trials that reach a milestone, about one in `tune.reduction` continues, and always the first.
        """
        milestone = min(self.tune.grace_epochs, epochs)
        passed, done = float(trials), float(trials * milestone)
        while milestone < epochs:
            passed = sum(max(1 / k, 1 / self.tune.reduction) for k in range(1, round(passed) + 1))
            following = min(epochs, math.ceil(milestone * self.tune.reduction))
            done += passed * (following - milestone)
            milestone = following
        return done / epochs, passed

    def _seconds(self, name: str, epochs: int, workload: Workload) -> float:
        """Return the seconds of one training."""
        settings, workers = self.train.model_copy(update={"epochs": epochs}), self.tune.workers_per_trial
        reports = costs.validations(settings, workload) * _REPORT
        return costs.trial_seconds(settings, workload, self.costs[name], workers) + reports

    def _wall_time(self, work: list[float], trials: list[float]) -> float:
        """Return the wall time of `work` in concurrent trials, at the end of which some workers are idle."""
        if not any(work):
            return 0.0
        waiting = sum(trials) / len(trials) * (1 - 1 / self.concurrent) / 2
        return max(sum(work) / self.concurrent + waiting, max(trials))

    def robustness_tracks(self, plan: Plan) -> int:
        """Return the number of test tracks whose robustness is planned: at most a fifth of tune.minutes is for it."""
        if not self.tune.robustness:
            return 0
        total = self.workload.test_tracks
        asked = min(total, self.tune.robustness_tracks or total)
        if not self.tune.minutes:
            return asked
        fitting = int(_ROBUSTNESS * 60 * self.tune.minutes * self.concurrent / self._changed_track(plan))
        return min(asked, max(fitting, min(asked, self.workload.classes)))

    def _judging(self, plan: Plan) -> tuple[float, float]:
        """Return the seconds of scoring the models on the test tracks, and on changed audio."""
        predicting = plan.finals * plan.seeds * self._predictions(plan) + self._embedding(plan)
        scoring = (predicting + _PASSES * self._reading()) / self.concurrent + _JUDGING
        return scoring, self.robustness_tracks(plan) * self._changed_track(plan) / self.concurrent

    def _changed_track(self, plan: Plan) -> float:
        """Return the seconds in which one process scores a test track on all changes of its audio."""
        audio = self.workload.test * self.workload.shape.frames * self.workload.shape.frame_seconds
        seconds = plan.seeds * self._predictions(plan) + audio * _CHANGED_AUDIO
        return len(CHANGES) * seconds / max(1, self.workload.test_tracks)

    def _predictions(self, plan: Plan) -> float:
        """Return the seconds in which one process predicts all test clips with one model of each architecture."""
        test = self.workload.test
        return sum(costs.predict_seconds(self.train, self.workload, test, self.costs[name]) for name in plan.epochs)

    def _embedding(self, plan: Plan) -> float:
        """Return the seconds in which one process embeds the training tracks, or a sample, with the slowest network.

        With tune.folds they are all that are not test; a validation track has about as many clips as a training track.
        """
        total = self.all_clips.train
        tracks = self.workload.train_tracks * total / max(1, self.workload.train)
        clips = total * min(1.0, MOST_TRACKS / max(1.0, tracks))
        return max(costs.predict_seconds(self.train, self.workload, clips, self.costs[name]) for name in plan.epochs)

    def _reading(self) -> float:
        """Return the seconds in which one process reads all clips: the files hold those of all tracks."""
        clips = self.workload.train + self.workload.valid + self.workload.test
        return clips * self.workload.shape.bytes / 1e9 * _READ_GB


def seeds_within(
    seconds: float, maximum: int, concurrent: int, trainings: Sequence[float], remaining: Sequence[float]
) -> int:
    """Return how many seeds of each winner, at most `maximum`, can be trained in `seconds`, `concurrent` at a time.

    `trainings` are the seconds of one training of each winner, `remaining` those until its first seed is finished.
    Returns 0 if not even the first seeds fit.
    """
    for count in range(maximum, 0, -1):
        work = sum(remaining) + (count - 1) * sum(trainings)
        longest = max([*remaining, *(trainings if count > 1 else ())])
        if not work or max(work / concurrent, longest) <= seconds:
            return count
    return 0
