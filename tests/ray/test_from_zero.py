"""Jobs on a cluster without any machine: they start as many as they can use, or say that there are none."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from autoscaling import Autoscaled, autoscaled
from conftest import REPOSITORY
from running import ENVIRONMENT, SETTINGS, command, write_config
from saving import save_model

from genre.storage import Location

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OUTPUT = "s3://bucket/run"
ONE_CPU = {"cpu": {"resources": {"CPU": 1}, "max_workers": 3}}
ONE_GPU = {"gpu": {"resources": {"CPU": 1, "GPU": 1}, "max_workers": 1}}
NO_MACHINE = "the cluster has no machine with {} and cannot start one; add such a type of machine"
NO_MACHINES = "the cluster has no machines for {} and cannot start them; it has no machine but its head now"


@dataclass(frozen=True)
class Done:
    """A job that has ended, and how many machines were up at the same time."""

    code: int
    output: str
    machines: int


def run(name: str, home: Path, cluster: Autoscaled, *settings: str) -> Done:
    """Run a job on the cluster, after its idle machines have ended."""
    cluster.wait(lambda cluster: cluster.workers() == [])
    began, most = time.monotonic(), 0
    with (home / "log").open("w") as log:
        running = subprocess.Popen(
            command(name, home, *settings), cwd=REPOSITORY, env=cluster.environment, stdout=log, stderr=log
        )
        try:
            while running.poll() is None:
                most = max(most, len(cluster.workers()))
                assert time.monotonic() < began + 240, (home / "log").read_text() + cluster.log()[-3000:]
                time.sleep(0.2)
        finally:
            running.kill()
    return Done(running.returncode, (home / "log").read_text(), most)


@pytest.fixture(scope="module")
def home(bucket_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with run.yaml, whose output is in the bucket, with features, and with a model."""
    folder = tmp_path_factory.mktemp("zero")
    write_config(folder, SETTINGS | {"tune": SETTINGS["tune"] | {"architectures": ["cnn", "resnet"]}})
    settings = yaml.safe_load((folder / "run.yaml").read_text()) | {"output": OUTPUT}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    save_model(folder / "model")
    subprocess.run(command("prepare", folder), check=True, cwd=REPOSITORY, env=ENVIRONMENT | bucket_server)
    return folder


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[Autoscaled]:
    """Start a cluster of at most three machines, one CPU each."""
    with autoscaled(ONE_CPU, boot_seconds=2) as cluster:
        yield cluster


@pytest.mark.parametrize(("name", "workers"), [("cnn", 1), ("resnet", 2)])
def test_train_starts_a_machine_for_each_worker(name: str, workers: int, home: Path, cluster: Autoscaled) -> None:
    done = run("train", home, cluster, f"architecture={name}", f"train.workers={workers}")
    assert done.code == 0, done.output
    assert done.machines == workers
    assert (Location.of(OUTPUT) / "models" / name / "model.json").exists()


def test_evaluate_starts_machines(home: Path, cluster: Autoscaled) -> None:
    done = run("evaluate", home, cluster)
    assert done.code == 0, done.output
    assert done.machines >= 1
    assert (Location.of(OUTPUT) / "evaluation" / "leaderboard.html").exists()


def test_tune_starts_a_machine_for_each_trial(home: Path, cluster: Autoscaled) -> None:
    done = run("tune", home, cluster)
    assert done.code == 0, done.output
    assert done.machines >= 2  # and one for the baseline
    assert "set tune.concurrent to what it can run" in done.output
    assert (Location.of(OUTPUT) / "leaderboard" / "leaderboard.html").exists()


@pytest.mark.parametrize(
    ("name", "settings", "asked"),
    [
        ("train", ["architecture=vgg16", "device=cuda"], NO_MACHINES.format("1 x (1 CPU and 1 GPU)")),
        ("tune", ["tune.cpus_per_trial=2"], "1 x (tune.cpus_per_trial=2): " + NO_MACHINES.format("1 x (2 CPU)")),
        ("tag", ["model={0}/model", "inputs={0}/music", "device=cuda"], NO_MACHINE.format("1 GPU")),
    ],
)  # fmt: skip
def test_what_no_machine_has_is_refused(
    name: str, settings: list[str], asked: str, home: Path, cluster: Autoscaled
) -> None:
    """It also notices when Ray changes how its autoscaler reports what it refuses."""
    done = run(name, home, cluster, *(setting.format(home) for setting in settings))
    assert done.code == 2, done.output
    assert asked in done.output


def test_prepare_is_refused_where_no_machine_has_a_cpu(home: Path) -> None:
    with autoscaled({"gpu": {"resources": {"CPU": 0, "GPU": 1}, "max_workers": 1}}) as cluster:
        done = run("prepare", home, cluster, f"output={OUTPUT}-refused")
    assert done.code == 2, done.output
    assert NO_MACHINE.format("1 CPU") in done.output
    assert done.machines == 0


def test_a_gpu_that_torch_does_not_see_ends_the_job(home: Path) -> None:
    """The GPU of the machine exists on paper only, as with a driver that is too old."""
    with autoscaled(ONE_GPU) as cluster:
        done = run("tune", home, cluster)
    assert done.code == 1, done.output
    assert "error: torch sees no GPU on " in done.output.splitlines()[-1]
    assert done.machines == 1
