"""Train one architecture on prepared features: one process on a CPU, or many workers on GPUs.

Write OUTPUT/models/<architecture>. train.batch_size is the global batch and train.learning_rate belongs to it: each
of the train.workers takes an equal share of every batch. Run again after an interruption, it resumes after the last
finished epoch, with any number of workers; it refuses other settings. The test split is not used.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from dataclasses import asdict
from typing import Any

import ray.train
import torch
from ray.train.torch import TorchTrainer, get_device, prepare_model

from genre import architectures
from genre.config import Config, differences, require_known
from genre.errors import ConfigError, TrainingError
from genre.features.windows import Shard
from genre.model import checkpoint
from genre.model.saved_model import ModelCard
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data
from ray_jobs.engine import cli, cluster, metrics, reporter

# Where a run computes, rather than what: an interrupted one may go on with others
_ELSEWHERE = {"resume", "workers", "device"}


def run(config: Config) -> None:
    """Train `config.model` into OUTPUT/models/<label>; the label is the architecture, and what it started from.

    Raises `ConfigError` when an interrupted run of that label had other settings.
    """
    if config.model.path:  # not empty: `model=` did not name an architecture
        require_known("model", config.model.path, architectures.names())
    output = Location.of(config.output)
    config = config.model_copy(update={"output": str(output)})  # workers may be in other folders
    data = experiment.load_data(output / "features")
    experiment.check_settings(config, data.manifest, output / "features")
    # a rehearsal: settings or weights that do not fit show here, before any worker starts
    card, _ = experiment.trainer_for(config, data, torch.device("cpu"), Shard(0, config.train.workers))
    saved = output / "models" / card.label
    record = _claim(output / "runs" / card.label, _settings(config, card, data), config.train.resume)
    if _is_done(record, saved):
        _print_result(saved)
        return
    cli.console().print(
        f"train: {card.label} on {len(data.train.track_ids)} tracks, "
        f"validated on {len(data.valid.track_ids)}, {len(data.classes)} genres"
    )
    with cluster.connected(config):
        resources = _resources(config)
        shared = [ray.put(data)]
        del data  # from here on the workers of a machine share one copy
        failure = _fit(config, card, shared, resources)
    outcome = {"ended": True, "weights": None if failure else _weights(saved)}
    record.write_json(record.read_json() | outcome)
    if failure is not None:
        raise TrainingError(failure)
    _print_result(saved)


def _fit(config: Config, card: ModelCard, shared: list[ray.ObjectRef[Data]], resources: dict[str, int]) -> str | None:
    """Train with all workers. Returns why it cannot go on, where the reason lies in the settings."""
    runs = Location.of(config.output) / "runs"
    with reporter.listening(_print_epoch) as mailbox:
        trainer = TorchTrainer(
            _worker,
            # the reference travels, not the arrays
            train_loop_config={
                "config": config,
                "data": shared,
                "mailbox": mailbox,
                "threads": resources["CPU"],
                "rescued": _rescued(runs / card.label),
            },
            scaling_config=ray.train.ScalingConfig(
                num_workers=config.train.workers, use_gpu="GPU" in resources, resources_per_worker=resources
            ),
            run_config=ray.train.RunConfig(
                name=card.label,  # Ray goes on with an earlier run of the same name
                storage_path=runs.path,
                storage_filesystem=runs.filesystem,
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=3),
                failure_config=ray.train.FailureConfig(max_failures=2, controller_failure_limit=2),
                logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            ),
        )
        try:
            failure: str | None = trainer.fit().return_value
        except SystemExit:  # what Ray makes of an interrupt
            raise KeyboardInterrupt from None
    return failure


def _worker(setup: dict[str, Any]) -> str | None:
    """One training process: its share of every batch, and on rank 0 the reports and the saved model.

    Returns the message of a `TrainingError`: raised, it would make Ray try the same again.
    """
    config: Config = setup["config"]
    data: Data = ray.get(setup["data"][0])
    torch.set_num_threads(setup["threads"])
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    # batch statistics are averaged by the trainer, once an epoch; DDP would send them with every step
    wrap = functools.partial(prepare_model, parallel_strategy_kwargs={"broadcast_buffers": False})
    card, trainer = experiment.trainer_for(config, data, get_device(), shard, wrap)
    last = ray.train.get_checkpoint()
    if last is not None:
        with last.as_directory() as path:
            trainer.restore(checkpoint.load_state(Location.of(path) / "state.pt"))
    elif setup["rescued"] is not None:
        trainer.restore(checkpoint.load_state(setup["rescued"]))
    try:
        for epoch in trainer.run():
            report = asdict(epoch)
            metrics.report_epoch(epoch.windows_per_second, epoch.data_wait_seconds)
            if shard.rank:
                ray.train.report(report)
                continue
            setup["mailbox"].put.remote(report | {"epochs": config.train.epochs})
            with tempfile.TemporaryDirectory() as path:
                checkpoint.save_state(Location.of(path) / "state.pt", trainer.state())
                ray.train.report(report, checkpoint=ray.train.Checkpoint.from_directory(path))
    except TrainingError as error:
        return str(error)
    if not shard.rank:
        experiment.save_best(Location.of(config.output) / "models" / card.label, card, trainer, config)
    return None


def _rescued(run: Location) -> Location | None:
    """The state after the last epoch where Ray's list of checkpoints does not tell; None where it does or none is left.

    Ray writes that list in place after every epoch, so that a kill may leave a part of it, on which Ray would fail.
    """
    listed = run / "checkpoint_manager_snapshot.json"
    if listed.holds_json():
        return None
    listed.delete()
    states = [run / info.base_name / "state.pt" for info in run.children() if info.base_name.startswith("checkpoint_")]
    return next((state for state in reversed(states) if checkpoint.is_whole(state)), None)


def _settings(config: Config, card: ModelCard, data: Data) -> dict[str, Any]:
    """Everything that decides what a run computes."""
    return {
        "seed": config.seed,
        "train": config.train.model_dump(mode="json", exclude=_ELSEWHERE),
        "models": {card.architecture: card.params},
        "features": {key: data.manifest[key] for key in ("fingerprint", "contents")},
    }


def _claim(run: Location, settings: dict[str, Any], resume: bool) -> Location:
    """Make `run` the folder of a run of these settings; returns its record, to be marked when it is finished.

    A run of the same settings stays, to be gone on with; one of others is replaced, unless it was interrupted:
    then its epochs would be lost, and a `ConfigError` names what differs.
    """
    record = run / "run.json"
    if record.exists():
        earlier = record.read_json()
        different = differences(earlier["settings"], settings)
        if resume and different and not earlier["ended"]:
            raise ConfigError(
                f"{run} was interrupted and had other settings: {'; '.join(different)}; "
                "finish it with its own, or replace it with train.resume=false"
            )
        if resume and not different:
            return record
    run.delete()
    record.write_json({"settings": settings, "ended": False, "weights": None})
    return record


def _is_done(record: Location, saved: Location) -> bool:
    """Whether the run of this record came to its end, and what it saved is still there."""
    weights = record.read_json()["weights"]
    return weights is not None and weights == _weights(saved)


def _weights(saved: Location) -> str | None:
    """Hash of a saved model's weights, None where there is no model."""
    card = saved / "model.json"
    return str(card.read_json()["weights"]) if card.exists() else None


def _resources(config: Config) -> dict[str, int]:
    """What each worker gets. Raises `ConfigError` where the cluster lacks room, since workers would wait for ever."""
    use_gpu = cluster.gpus() > 0 and config.train.device != "cpu"
    if config.train.device == "cuda" and not use_gpu:
        raise ConfigError("train.device=cuda, but the cluster has no GPU; use train.device=auto or cpu")
    unit = "GPU" if use_gpu else "CPU"
    machines = [int(node["Resources"].get(unit, 0)) for node in ray.nodes() if node["Alive"]]
    if config.train.workers > sum(machines):
        raise ConfigError(
            f"train.workers={config.train.workers}, but the cluster has {sum(machines)} {unit}s; "
            f"use at most {sum(machines)}"
        )
    if use_gpu:
        return {"CPU": 1, "GPU": 1}
    # as many CPUs, and so torch threads, as let all workers find a place
    shares = range(1, max(machines) + 1)
    return {"CPU": max(share for share in shares if sum(m // share for m in machines) >= config.train.workers)}


def _print_result(saved: Location) -> None:
    card, _ = checkpoint.load(saved)
    cli.console().print(
        f"train: best validation macro F1 {card.facts['valid_f1']:.3f} in epoch {card.facts['best_epoch']} -> {saved}"
    )


def _print_epoch(report: dict[str, Any]) -> None:
    cli.console().print(
        f"  epoch {report['epoch']:>3}/{report['epochs']}  loss {report['train_loss']:.3f}  "
        f"valid loss {report['valid_loss']:.3f}  accuracy {report['valid_accuracy']:.3f}  "
        f"macro F1 {report['valid_f1']:.3f} (best {report['best_f1']:.3f})  "
        f"{report['windows_per_second']:.0f} windows/s"
    )


if __name__ == "__main__":
    sys.exit(cli.main("train"))
