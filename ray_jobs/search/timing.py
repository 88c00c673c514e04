"""Time a few training steps of each architecture, and print what a search trains and how long that takes."""

from __future__ import annotations

from collections.abc import Mapping

import ray
import torch

from genre.errors import ConfigError, DeviceError, TrainingError
from genre.features import SPLITS, Features
from genre.settings import TuneSettings
from genre.training import costs
from genre.training.costs import Cost, Workload
from genre.training.experiment import Experiment
from genre.wording import by_reason, duration, money, plural
from ray_jobs.engine import cli
from ray_jobs.engine.progress import JobProgress
from ray_jobs.engine.tasks import finished
from ray_jobs.search import exits
from ray_jobs.search.budget import Forecast
from ray_jobs.search.plan import Plan
from ray_jobs.search.resources import TrialResources

TOO_LONG = 1.1  # a search is late if it takes longer than tune.minutes, times this

_LONG_WITHOUT_GPU = 3600.0  # seconds


def workload_of(features: Features) -> Workload:
    """Return the size of a search on these features."""
    train, valid, test = map(features.clip_count, SPLITS)
    test_tracks, train_tracks = len(features.tracks("test")), len(features.tracks("train"))
    return Workload(train, valid, test, features.shape, len(features.classes), test_tracks, train_tracks)


def measure(
    experiments: Mapping[str, Experiment], tune: TuneSettings, workload: Workload, resources: TrialResources
) -> Forecast:
    """Time a few training steps of each architecture in tasks with the resources of a trial. Ray must be connected.

    `experiments` are those of `space.experiments`. Raises `ConfigError` for settings that an architecture refuses, and
    as `check`, `DeviceError` where torch sees no GPU, and `TrainingError` if no architecture can take a step.
    """
    concurrent = resources.concurrent_trials()  # first: if no trial fits, measuring would wait forever
    if resources.most_trials() is None:
        cli.say(
            f"tune: planned for {plural(concurrent, 'training')} at a time, as many as fit on the machines that are "
            "up; the cluster may start more: set tune.concurrent to what it can run"
        )
    probe = _probe.options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    running = {probe.remote(planned, workload, resources): name for name, planned in experiments.items()}
    measured: dict[str, Cost] = {}
    failures: dict[str, str] = {}
    with JobProgress("timing a few steps of each architecture", len(experiments)) as progress:
        for task in finished(running, progress):
            name = running[task]
            try:
                measured[name] = ray.get(task)
            except (ConfigError, DeviceError):
                raise
            except ray.exceptions.RayError as error:
                failures[name] = f"no training step is possible ({exits.cause(error)})"
    if not measured:
        reasons = "; ".join(f"{name}: {failures[name]}" for name in experiments)
        raise TrainingError(f"no architecture to search: {reasons}")
    ordered = {name: measured[name] for name in experiments if name in measured}
    train = next(iter(experiments.values())).train  # all have the same settings of training
    forecast = Forecast(train, tune, workload, ordered, concurrent, bool(resources.gpus), failures)
    check(forecast)
    return forecast


def check(forecast: Forecast) -> None:
    """Raise `ConfigError` if tune.minutes is too short for even one epoch of the fastest architecture.

    Such a network knows nothing, and would replace a model that `tag` uses.
    """
    limit, fastest = forecast.tune.minutes, forecast.fastest()
    if limit and forecast.estimate(fastest).total > TOO_LONG * 60 * limit:
        raise ConfigError(
            f"tune.minutes={limit:g} is too short for one epoch of {', '.join(fastest.epochs)}; give at least "
            f"tune.minutes={forecast.enough_minutes():g}, or leave it out"
        )


def show(forecast: Forecast, plan: Plan) -> None:
    """Print what `plan` trains and how long that takes."""
    for line in lines(forecast, plan):
        cli.say(f"tune: {line}")


def left_out(reasons: Mapping[str, str]) -> list[str]:
    """Return a line for each reason, with all architectures that are left out for it."""
    return [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} left out: {reason}"
        for reason, names in by_reason(reasons).items()
    ]


def lines(forecast: Forecast, plan: Plan) -> list[str]:
    """Return what `plan` trains and how long that takes; if it takes long, also the settings that shorten it."""
    expected, limit = forecast.estimate(plan), forecast.tune.minutes
    shares = ", ".join(f"{name} {share:.0%}" for name, share in forecast.shares(plan).items())
    text = left_out(forecast.left_out(plan))
    seen = f" on {forecast.tune.sample:.0%} of the tracks" if forecast.tune.sample < 1 else ""
    seen += f" over {forecast.tune.folds} folds" if forecast.tune.folds else ""
    text += [
        f"{plural(plan.trials, 'trial')} of each of {plural(len(plan.epochs), 'architecture')}{seen}, the best "
        f"{'and the configured settings ' if plan.finals > 1 else ''}with {plural(plan.seeds, 'seed')}, "
        f"{plural(forecast.concurrent, 'training')} at a time",
        f"about {duration(expected.total)}: search {duration(expected.search)}, "
        f"final trainings {duration(expected.finals)}, judging {duration(expected.judging)}",
        f"epochs: {_epochs(plan)}; share of the time: {shares}",
    ]
    full = forecast.full()
    if (plan.trials, plan.seeds) != (full.trials, full.seeds):
        text.append(
            f"tune.minutes={limit:g} allows {plan.trials} of {plural(full.trials, 'trial')} and {plan.seeds} of "
            f"{plural(full.seeds, 'seed')}"
        )
    if limit and expected.total > TOO_LONG * 60 * limit:
        text.append(f"tune.minutes={limit:g} is too short for one epoch of {', '.join(plan.epochs)}")
    elif short := [name for name, epochs in plan.epochs.items() if epochs < forecast.fewest_epochs]:
        text.append(
            f"{', '.join(short)}: fewer epochs than tune.grace_epochs={forecast.tune.grace_epochs}, too few to learn "
            "much; raise tune.minutes or name fewer in tune.architectures"
        )
    if not limit and not forecast.on_gpus and expected.total > _LONG_WITHOUT_GPU:
        halving = "".join(f"{setting} halves it, " for setting in forecast.halving(plan))
        text.append(
            f"that is long for machines without a GPU: {halving}tune.minutes=60 limits it to an hour, "
            "and --config configs/laptop.yaml, given to prepare and tune, has networks that train in that time"
        )
    return text


def costs_of(forecast: Forecast, plan: Plan, resources: TrialResources, price: float | None) -> list[str]:
    """Return what the trainings of `plan` occupy and, with the `price` of a core-hour, what that costs."""
    hours = forecast.training_seconds(plan) / 3600 * resources.workers
    cores, gpus = hours * resources.cpus, hours * resources.gpus
    text = [f"{cores:.2f} core-hours{f' and {gpus:.2f} GPU-hours' if gpus else ''} of training"]
    if price is not None:
        left_out = f"judging{', GPUs' if gpus else ''} and the time in which machines boot"
        text.append(f"price: {money(cores * price)} at {price:g} a core-hour, without {left_out}")
    return text


def _epochs(plan: Plan) -> str:
    """Return such as "30 each" or "cnn 30, vgg19 12"."""
    if len(set(plan.epochs.values())) == 1:
        return f"{next(iter(plan.epochs.values()))} each"
    return ", ".join(f"{name} {epochs}" for name, epochs in plan.epochs.items())


@ray.remote(max_retries=1)
def _probe(planned: Experiment, workload: Workload, resources: TrialResources) -> Cost:
    torch.set_num_threads(resources.threads)
    return costs.probe(planned, workload, resources.torch_device())
