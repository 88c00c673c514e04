"""Run a training on the workers of Ray: what `train` and `pretrain` have in common.

A run resumes after its last epoch, with any number of workers, whatever ended it. The driver reads no clips.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import ray.train
import torch
from ray.train.torch import TorchTrainer, get_device, prepare_model
from torch import nn

from genre.errors import ArtifactError, ConfigError, StorageError, TrainingError, one_line
from genre.features.cache import CachedClips, ClipCache
from genre.features.windows import Worker
from genre.settings import Config
from genre.storage import Location
from genre.training import sharing, trainer_state
from genre.training.run_record import RunRecord
from ray_jobs.engine import cli, cluster, machines, metrics, reporter
from ray_jobs.engine.capacity import Capacity, is_cluster


class Trains(Protocol):
    """What trains in each worker: `Trainer` or `Pretrainer`."""

    def run(self) -> Iterator[Any]:
        """Train from where it is; yield the results of each epoch, a dataclass."""

    def state(self) -> dict[str, Any]:
        """Return everything needed to resume."""

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state."""


# makes, from the clips of a machine, what trains there, and the function that saves the model at the end
Begin = Callable[
    [CachedClips, torch.device, Worker, Callable[[nn.Module], nn.Module]], tuple[Trains, Callable[[], object]]
]


@dataclass(frozen=True)
class Training:
    """A training as a job plans it."""

    job: str
    begin: Begin  # pickled, so a function of a module, with its arguments
    cache: ClipCache
    model: Location  # where the first worker saves the result
    run: Location  # the folder of the run, where Ray keeps checkpoints
    deciding: dict[str, Any]  # everything that decides what the run computes
    introduction: str  # printed before it starts
    show: Callable[[dict[str, Any]], None]  # prints the results of an epoch
    # on Ray, before it starts: returns the training with more clips
    extended: Callable[[Training, Capacity], Training] | None = None


@dataclass(frozen=True)
class WorkerSetup:
    """What each training process gets from the driver."""

    begin: Begin
    cache: ClipCache
    mailbox: Any  # takes messages, and a report of each epoch
    threads: int  # of torch
    use_gpu: bool
    run: Location  # the folder of the run
    state: Location | None  # to resume from where Ray knows no checkpoint


def complete(training: Training, config: Config) -> None:
    """Run a training, or what is left of it. Nothing happens where its result is complete.

    To be called with the lease of the output. Raises `ConfigError` when an interrupted run had other settings, and
    `TrainingError` for what a repetition would not change.
    """
    record = RunRecord.claim(training.run, training.deciding, config.train.resume)
    if record.is_complete(training.model):
        return
    after = ", resuming after the last epoch that ended" if training.run.folders("checkpoint_") else ""
    cli.say(f"{training.job}: {training.introduction}{after}")
    if not is_cluster():  # on a cluster the first worker finds out
        training.cache.check_size()
    with cluster.connected(config.cluster, config.output) as capacity:
        resources = _resources(config.train.workers, config.device, capacity)
        if training.extended:
            training = training.extended(training, capacity)
            if not is_cluster():
                training.cache.check_size()
        failure = _fit(training, config.train.workers, resources)
    record.end(None if failure else training.model)
    if failure is not None:
        raise TrainingError(failure)


def _fit(training: Training, workers: int, resources: dict[str, int]) -> str | None:
    """Train with all workers. Return the message of an error that a repetition would raise again, else None."""
    use_gpu, folder = "GPU" in resources, training.run
    with reporter.listening(functools.partial(_show, training)) as mailbox:
        state = _unlisted_state(folder)
        setup = WorkerSetup(training.begin, training.cache, mailbox, resources["CPU"], use_gpu, folder, state)
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"setup": setup},
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers, use_gpu=use_gpu, resources_per_worker=resources
            ),
            run_config=ray.train.RunConfig(
                name=folder.name,  # Ray resumes an earlier run of the same name
                storage_path=folder.path.rpartition("/")[0],
                storage_filesystem=folder.filesystem,
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=3),
                failure_config=ray.train.FailureConfig(max_failures=2, controller_failure_limit=2),
                logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            ),
        )
        try:
            failure: str | None = trainer.fit().return_value
        except SystemExit:  # Ray's translation of an interrupt
            raise KeyboardInterrupt from None
        except ray.train.WorkerGroupError as error:  # its message is the start of a traceback
            raise error from next(iter(error.worker_failures.values()), None)
    return failure


def _worker(loop_config: dict[str, Any]) -> str | None:
    """Train this process's share of every batch; rank 0 also reports the epochs and saves the model.

    Return the message of an error that a repetition would raise again: if it were raised, Ray would train again.
    """
    setup: WorkerSetup = loop_config["setup"]
    torch.set_num_threads(setup.threads)
    context = ray.train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size())
    # batch statistics are averaged by the trainer, once an epoch; DDP would send them with every step
    wrap = functools.partial(prepare_model, parallel_strategy_kwargs={"broadcast_buffers": False})
    try:
        node = ray.get_runtime_context().get_node_id()
        cached, worker = sharing.open_data(setup.cache, worker, node, setup.mailbox.put.remote, setup.use_gpu)
    except TrainingError as error:
        return str(error)
    trainer, save = setup.begin(cached, get_device(), worker, wrap)
    _resume(trainer, setup.state)
    try:
        for epoch in trainer.run():
            metrics.report_epoch(epoch.windows_per_second, epoch.data_wait_seconds)
            if worker.rank:
                ray.train.report(asdict(epoch))
            else:
                _report_first(setup, asdict(epoch), trainer.state())
    except TrainingError as error:
        return str(error)
    save()
    return None


def _resume(trainer: Trains, state: Location | None) -> None:
    """Restore the last state that Ray knows, else `state`, if there is one."""
    last = ray.train.get_checkpoint()
    if last is not None:
        with last.as_directory() as path:
            trainer.restore(trainer_state.load(Location.of(path) / "state.pt"))
    elif state is not None:
        trainer.restore(trainer_state.load(state))


def _report_first(setup: WorkerSetup, report: dict[str, Any], state: dict[str, Any]) -> None:
    """Report an epoch to the driver and to Ray, with a checkpoint. Only the first worker does."""
    setup.mailbox.put.remote(report)
    with tempfile.TemporaryDirectory() as path:
        trainer_state.save(Location.of(path) / "state.pt", state)
        saved = ray.train.Checkpoint.from_directory(path)
        ray.train.report(report, saved, checkpoint_upload_fn=functools.partial(_upload, setup.run))


def _upload(run: Location, saved: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
    """Copy a checkpoint to the folder of the run. Ray's own copy reports no error when an upload fails at its end.

    Raises `StorageError`, after which Ray tries again and then starts the workers again, with the last checkpoint.
    """
    target = run / name
    with saved.as_directory() as path:
        content = (Location.of(path) / "state.pt").read_bytes()
    try:
        (target / "state.pt").write_bytes(content)
    except OSError as error:
        raise StorageError(
            f"{target} cannot be written ({one_line(error)}); run the same command again when the storage answers"
        ) from None
    return ray.train.Checkpoint(target.path, target.filesystem)


def _unlisted_state(run: Location) -> Location | None:
    """Return the newest complete state of a run whose list of checkpoints is unreadable; None where Ray can resume.

    Ray overwrites that list after every epoch. A kill may leave a part of it, on which Ray would fail.
    """
    checkpoints = run / "checkpoint_manager_snapshot.json"
    if checkpoints.exists():
        with contextlib.suppress(ArtifactError):
            checkpoints.read_json()
            return None
    checkpoints.delete()
    states = [folder / "state.pt" for folder in run.folders("checkpoint_")]
    return next((state for state in reversed(states) if trainer_state.is_complete(state)), None)


def _resources(count: int, device: str, capacity: Capacity) -> dict[str, int]:
    """Return the CPUs and GPUs of each of `count` workers. On a cluster, start the machines for them.

    Raises `ConfigError` where the job cannot have enough: workers would wait for them forever.
    """
    capacity.check_device(device)
    use_gpu = capacity.gives_gpu(device)
    needed = {"CPU": 1, "GPU": 1} if use_gpu else {"CPU": 1}
    most = min(capacity.cpus, capacity.gpus) if use_gpu else capacity.cpus
    if count > most:
        raise ConfigError(
            f"train.workers={count}, but the job may use {capacity.cpus:g} CPUs and {capacity.gpus:g} GPUs; "
            f"use at most {most:g}"
        )
    if is_cluster():
        machines.start([needed] * count, f"train.workers={count}")
    if use_gpu:
        return needed
    cpus = [int(min(machine.get("CPU", 0), capacity.cpus)) for machine in machines.running()]
    return {"CPU": cpus_of_a_worker(cpus, count, capacity.cpus)}


def cpus_of_a_worker(cpus: Sequence[int], workers: int, most: float) -> int:
    """Return the most CPUs, and so torch threads, with which all workers fit on machines with `cpus`, `most` in all.

    It is 1 where they do not fit: a machine that was lost since it was started is replaced.
    """
    shares = range(1, int(min(max(cpus), most / workers)) + 1)
    return max((share for share in shares if sum(own // share for own in cpus) >= workers), default=1)


def _show(training: Training, report: str | dict[str, Any]) -> None:
    """Print a message, or the report of an epoch."""
    if isinstance(report, str):
        cli.say(f"{training.job}: {report}")
    else:
        training.show(report)
