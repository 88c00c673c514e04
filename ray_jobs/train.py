"""Train one architecture on prepared features: one process on a CPU, or many workers on GPUs.

Run again after an interruption: it goes on from the last finished epoch. The test split is not touched.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from typing import Any

from genre import checkpoint, experiment
from genre.config import Config, fingerprint
from genre.errors import ConfigError
from genre.experiment import Data
from genre.storage import Location
from genre.windows import Shard
from ray_jobs import cli, cluster, reporter

import ray.train  # isort: skip
from ray.train.torch import TorchTrainer, get_device, prepare_model  # isort: skip


def run(config: Config) -> None:
    """Train `config.model` into OUTPUT/models/<architecture>."""
    output = Location.of(config.output)
    folder = output / "features"
    data = experiment.load_data(folder)
    experiment.check_settings(config, data.manifest, folder)
    console = cli.console()
    console.print(
        f"train: {config.model.name} on {len(data.train.track_ids)} tracks, "
        f"validated on {len(data.valid.track_ids)}, {len(data.classes)} genres"
    )
    with cluster.connected(config):
        use_gpu = _use_gpu(config)
        with reporter.listening(_print_epoch) as mailbox:
            TorchTrainer(
                _worker,
                # the reference travels, not the arrays: workers of a machine share one copy
                train_loop_config={"config": config, "data": [ray.put(data)], "mailbox": mailbox},
                scaling_config=ray.train.ScalingConfig(
                    num_workers=config.train.workers,
                    use_gpu=use_gpu,
                    resources_per_worker={"CPU": 1, "GPU": 1} if use_gpu else {"CPU": 1},
                ),
                run_config=_run_config(config, output, data),
            ).fit()
    saved = output / "models" / config.model.name
    card, _ = checkpoint.load(saved)
    console.print(
        f"train: best validation macro F1 {card.facts['valid_f1']:.3f} in epoch {card.facts['best_epoch']} -> {saved}"
    )


def _worker(setup: dict[str, Any]) -> None:
    """One training process: its share of every batch, and on rank 0 the reports and the saved model."""
    config: Config = setup["config"]
    data: Data = ray.get(setup["data"][0])
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    card, trainer = experiment.trainer_for(config, data, get_device(), shard, prepare_model)
    last = ray.train.get_checkpoint()
    if last is not None:
        with last.as_directory() as path:
            trainer.restore(checkpoint.load_state(Location.of(path) / "state.pt"))
    for epoch in trainer.run():
        report = asdict(epoch)
        if shard.rank:
            ray.train.report(report)
            continue
        setup["mailbox"].put.remote(report | {"epochs": config.train.epochs})
        with tempfile.TemporaryDirectory() as path:
            checkpoint.save_state(Location.of(path) / "state.pt", trainer.state())
            ray.train.report(report, checkpoint=ray.train.Checkpoint.from_directory(path))
    if not shard.rank:
        experiment.save_best(Location.of(config.output) / "models" / config.model.name, card, trainer, config)


def _run_config(config: Config, output: Location, data: Data) -> ray.train.RunConfig:
    """Ray goes on with an earlier run of the same name, so the name says everything that makes a run."""
    train = config.train.model_dump(mode="json", exclude={"resume"})
    params = config.models.get(config.model.name, {})
    made_of = {"train": train, "params": params, "seed": config.seed, "features": data.manifest["fingerprint"]}
    name = f"{config.model.name}-{fingerprint(made_of)}"
    runs = output / "runs"
    if not config.train.resume:
        (runs / name).delete()
    return ray.train.RunConfig(
        name=name,
        storage_path=runs.path,
        storage_filesystem=runs.filesystem,
        checkpoint_config=ray.train.CheckpointConfig(num_to_keep=3),
        failure_config=ray.train.FailureConfig(max_failures=2, controller_failure_limit=2),
        logging_config=ray.train.LoggingConfig(log_level="ERROR"),
    )


def _use_gpu(config: Config) -> bool:
    """Whether workers get GPUs. Raises `ConfigError` where the cluster lacks room, since they would wait for ever."""
    has_gpus = cluster.gpus() > 0
    if config.train.device == "cuda" and not has_gpus:
        raise ConfigError("train.device=cuda, but the cluster has no GPU; use train.device=auto or cpu")
    use_gpu = has_gpus and config.train.device != "cpu"
    room = cluster.gpus() if use_gpu else cluster.cpus()
    if config.train.workers > room:
        unit = "GPUs" if use_gpu else "CPUs"
        raise ConfigError(
            f"train.workers={config.train.workers}, but the cluster has {room} {unit}; use at most {room}"
        )
    return use_gpu


def _print_epoch(report: dict[str, Any]) -> None:
    cli.console().print(
        f"  epoch {report['epoch']:>3}/{report['epochs']}  loss {report['train_loss']:.3f}  "
        f"valid loss {report['valid_loss']:.3f}  accuracy {report['valid_accuracy']:.3f}  "
        f"macro F1 {report['valid_f1']:.3f} (best {report['best_f1']:.3f})  "
        f"{report['windows_per_second']:.0f} windows/s"
    )


if __name__ == "__main__":
    sys.exit(cli.main("train", __doc__, run))
