"""What a search will train and how long that takes on these machines: measured, decided, said, and kept.

The decision is kept in OUTPUT/tune/plans, so that a search that was interrupted resumes with the plan it began with,
although the machine is never twice equally fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import ray
import torch

from genre import devices
from genre.config import fingerprint
from genre.features import Features
from genre.settings import Config
from genre.storage import Location
from genre.training import costs
from genre.training.costs import Cost, Workload
from genre.training.experiment import Data, Experiment
from genre.wording import duration, plural
from ray_jobs.engine import cli
from ray_jobs.engine.progress import JobProgress
from ray_jobs.search import budget, terms
from ray_jobs.search.budget import Forecast, Plan
from ray_jobs.search.outcomes import Winner
from ray_jobs.search.trials import apply

Costs = Mapping[str, Cost]

_POLL_SECONDS = 1.0
_OF_THE_MACHINES = {"concurrent", "mlflow", "cpus_per_trial", "gpus_per_trial", "workers_per_trial"}
_LONG_WITHOUT_GPU = 3600.0  # seconds
_TOO_LONG = 1.1  # times tune.minutes


@dataclass(frozen=True)
class Decision:
    """The plan of a search, and the seconds that judging its models is expected to take."""

    plan: Plan
    judging: float
    asked: tuple[int, int]  # tune.trials and tune.seeds, of which the plan may have fewer
    seeds_decided: bool = False  # after the search, by the time that was left


def workload_of(data: Data, features: Features) -> Workload:
    """The size of a search on these features."""
    test = sum(features.tracks("test")["clips"].to_pylist())
    return Workload(len(data.train), len(data.valid), int(test), data.train.shape, len(data.classes))


def decide(config: Config, workload: Workload, measured: Costs | None = None) -> Decision:
    """Decide what the search does, say so, and keep it; or return what an earlier run of the same search decided.

    `measured` are costs of which a forecast was said already. Ray must be running; see `measure`.
    """
    file, asked = _file(config, workload), (config.tune.trials, config.tune.seeds)
    if file.exists():
        kept = file.read_json()
        decision = Decision(**kept | {"plan": Plan(**kept["plan"]), "asked": tuple(kept["asked"])})
        return decision if decision.asked == asked else _changed(config, workload, decision)
    made, plan = _forecast(config, workload, measured)
    if measured is None:
        _say(made, plan)
    decision = Decision(plan, made.estimate(plan).judging, asked)
    _keep(config, workload, decision)
    return decision


def seeds(config: Config, workload: Workload, decision: Decision, winners: Sequence[Winner], spent: float) -> int:
    """Seeds of each winner: those of the plan, or after `spent` seconds those that tune.minutes still allows.

    0: there is no time left to train the winners to their end. This is decided once; a search that is resumed keeps
    to it.
    """
    plan, limit = decision.plan, 60 * config.tune.minutes
    if not limit or decision.seeds_decided:
        return plan.seeds
    fitting = budget.seeds_within(
        limit - spent - decision.judging,
        plan.seeds,
        terms.concurrent_trials(config),
        trainings=[winner.training_seconds for winner in winners],
        remaining=[winner.remaining_seconds for winner in winners],
    )
    if fitting < plan.seeds:
        left = f"{fitting} of {plan.seeds} seeds" if fitting else "no further training"
        cli.console().print(f"tune: tune.minutes={config.tune.minutes:g} leaves time for {left}")
    _keep(config, workload, replace(decision, plan=replace(plan, seeds=fitting), seeds_decided=True))
    return fitting


def exceeded(config: Config, seconds: float) -> str:
    """A sentence for the report where the search took much longer than tune.minutes; "" where it did not."""
    limit = config.tune.minutes
    if not limit or seconds <= _TOO_LONG * 60 * limit:
        return ""
    note = f"The search took {duration(seconds)}, longer than tune.minutes={limit:g}."
    cli.console().print(f"tune: {note}")
    return note


def measure(config: Config, workload: Workload) -> dict[str, Cost]:
    """Time a few steps of each architecture where its trials will run. Ray must be running.

    `config` is one whose resources are decided; see `search.with_resources`.
    """
    names = terms.searched_architectures(config)
    place = _probe.options(num_cpus=config.tune.cpus_per_trial, num_gpus=config.tune.gpus_per_trial or 0)
    running = {place.remote(apply(config, {"architecture": name}), workload): name for name in names}
    measured: dict[str, Cost] = {}
    with JobProgress("timing a few steps of each architecture", len(names)) as progress:
        while running:
            done, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
            measured |= {running.pop(task): ray.get(task) for task in done}
            progress.step(len(done))
    return {name: measured[name] for name in names}


def forecast(config: Config, workload: Workload) -> tuple[Forecast, Plan]:
    """Predict the time of a search, and say what it will train and how long that takes."""
    made, plan = _forecast(config, workload)
    _say(made, plan)
    return made, plan


def lines(made: Forecast, plan: Plan) -> list[str]:
    """What will be trained, how long it will take, and where that is long, what would shorten it."""
    expected, limit = made.estimate(plan), made.config.tune.minutes
    shares = ", ".join(f"{name} {share:.0%}" for name, share in made.shares(plan).items())
    text = [
        f"{plural(plan.trials, 'trial')} of each of {plural(len(plan.epochs), 'architecture')}, the best with "
        f"{plural(plan.seeds, 'seed')}, {plural(made.places, 'training')} at a time",
        f"about {duration(expected.total)}: search {duration(expected.search)}, "
        f"final trainings {duration(expected.finals)}, judging {duration(expected.judging)}",
        f"epochs: {_epochs(plan)}; share of the time: {shares}",
    ]
    asked = made.full()
    if (plan.trials, plan.seeds) != (asked.trials, asked.seeds):
        text.append(
            f"tune.minutes={limit:g} allows {plan.trials} of {plural(asked.trials, 'trial')} and {plan.seeds} of "
            f"{plural(asked.seeds, 'seed')}"
        )
    if limit and expected.total > _TOO_LONG * 60 * limit:
        text.append(f"tune.minutes={limit:g} is too short for one epoch of each; name fewer in tune.architectures")
    on_cpus = not made.config.tune.gpus_per_trial
    if not limit and on_cpus and expected.total > _LONG_WITHOUT_GPU:
        halved = "".join(f"{setting} halves it, " for setting in made.halving(plan))
        text.append(f"that is long for machines without a GPU: {halved}tune.minutes=60 limits it to an hour")
    return text


def _forecast(config: Config, workload: Workload, measured: Costs | None = None) -> tuple[Forecast, Plan]:
    places = terms.concurrent_trials(config)  # first: where no trial has room, measuring one would wait forever
    made = Forecast(config, workload, measured or measure(config, workload), places)
    return made, made.fit(60 * config.tune.minutes) if config.tune.minutes else made.full()


def _say(made: Forecast, plan: Plan) -> None:
    for line in lines(made, plan):
        cli.console().print(f"tune: {line}")


def _changed(config: Config, workload: Workload, earlier: Decision) -> Decision:
    """The earlier plan with the trials or seeds that are asked for now; its epochs stay, so its trials are reused."""
    trials, seeds = config.tune.trials, config.tune.seeds
    plan = replace(
        earlier.plan,
        trials=trials if trials != earlier.asked[0] else earlier.plan.trials,
        seeds=seeds if seeds != earlier.asked[1] else max(1, earlier.plan.seeds),
    )
    if config.tune.minutes:
        counts = f"{plural(plan.trials, 'trial')} and {plural(plan.seeds, 'seed')} of each"
        cli.console().print(
            f"tune: {counts}, as asked, with the epochs of the earlier run; tune.minutes does not limit them"
        )
    decision = replace(earlier, plan=plan, asked=(trials, seeds), seeds_decided=True)
    _keep(config, workload, decision)
    return decision


def _file(config: Config, workload: Workload) -> Location:
    """Named after everything that the epochs of a plan follow from, but for the machines."""
    train = config.train.model_dump(mode="json", exclude={"resume", "workers"})
    tune = config.tune.model_dump(mode="json", exclude={*_OF_THE_MACHINES, "trials", "seeds"})
    made_of = {"architectures": config.architectures, "seed": config.seed, "workload": asdict(workload)}
    return Location.of(config.output) / "tune" / "plans" / f"{fingerprint(train, tune, made_of)}.json"


def _keep(config: Config, workload: Workload, decision: Decision) -> None:
    _file(config, workload).write_json(asdict(decision))


def _epochs(plan: Plan) -> str:
    """Such as "30 each" or "cnn 30, vgg19 12"."""
    if len(set(plan.epochs.values())) == 1:
        return f"{next(iter(plan.epochs.values()))} each"
    return ", ".join(f"{name} {epochs}" for name, epochs in plan.epochs.items())


@ray.remote(max_retries=1)
def _probe(config: Config, workload: Workload) -> Cost:
    torch.set_num_threads(max(1, int(config.tune.cpus_per_trial)))
    device = devices.device_for(config.device if config.tune.gpus_per_trial else "cpu")
    return costs.probe(Experiment.of(config), workload, device)
