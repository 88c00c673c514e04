"""Trials that end with an error, and those whose process dies by a signal, in a real Ray."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from genre.config import validate
from genre.errors import DeviceError, StorageError
from genre.settings import Config
from genre.storage import Location
from ray_jobs.search import exits

pytestmark = pytest.mark.ray

RAISED: dict[str, Exception] = {
    "away": OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
    "refused": StorageError("s3://bucket/run cannot be reached"),
    "blind": DeviceError("torch sees no GPU on node7"),
    "large": OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    "absent": FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)),
}
NUMBERS = [signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGKILL]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Location, dict[str, tune.Result]]:
    """The output, and what Tune says of a trial for each signal, one that raises and one that ends."""
    output = tmp_path_factory.mktemp("output")

    @exits.record_faults
    def train(trial: dict[str, Any], base: Config, shared: None) -> None:
        tune.report({"tries": 1})
        if trial["end"].startswith("SIG"):
            signal.raise_signal(getattr(signal, trial["end"]))  # in this thread, at once, as a fault does
        elif trial["end"] == "raises":
            raise ValueError("batch of one")
        elif trial["end"] in RAISED:
            raise RAISED[trial["end"]]

    ends = [*(number.name for number in NUMBERS), "raises", *RAISED, "well"]
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    try:
        tuner = tune.Tuner(
            tune.with_parameters(train, base=validate(Config, {"output": str(output)}), shared=None),
            param_space={"end": tune.grid_search(ends)},
            tune_config=tune.TuneConfig(trial_dirname_creator=lambda trial: str(trial.config["end"])),
            run_config=tune.RunConfig(
                storage_path=str(output / "logs"),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=exits.TRIES - 1),
            ),
        )
        grid = tuner.fit()
    finally:
        ray.shutdown()
    return Location.of(output), {Path(result.path).name: result for result in grid}


@pytest.mark.parametrize("number", NUMBERS[:-1], ids=lambda number: number.name)
def test_the_reason_names_the_signal(results: tuple[Location, dict[str, tune.Result]], number: signal.Signals) -> None:
    output, by_end = results
    assert (
        exits.reason(output, by_end[number.name]) == f"killed by signal {number.value} ({number.name}), tried 2 times"
    )


def test_a_death_that_no_process_can_record_is_told_from_the_others(
    results: tuple[Location, dict[str, tune.Result]],
) -> None:
    output, by_end = results
    assert exits.reason(output, by_end["SIGKILL"]) == "killed without a trace, as by signal 9 (SIGKILL), tried 2 times"


def test_an_exception_is_no_death(results: tuple[Location, dict[str, tune.Result]]) -> None:
    output, by_end = results
    assert exits.reason(output, by_end["raises"]) == "ValueError: batch of one, tried 2 times"


def test_faults_of_a_storage_or_a_gpu_end_the_job_and_those_of_a_trial_do_not(
    results: tuple[Location, dict[str, tune.Result]],
) -> None:
    output, by_end = results
    faults = {end: exits.fault(output, result) for end, result in by_end.items()}
    assert {end: (type(fault), str(fault)) for end, fault in faults.items() if fault is not None} == {
        "away": (
            StorageError,
            "trial away cannot reach its storage (Stale file handle); run the same command again when it answers",
        ),
        "refused": (StorageError, "s3://bucket/run cannot be reached"),
        "blind": (DeviceError, "torch sees no GPU on node7"),
    }


def test_only_a_death_leaves_a_record(results: tuple[Location, dict[str, tune.Result]]) -> None:
    output, by_end = results
    assert by_end["well"].error is None
    left = {file.stem for file in Path(output.path, "tune/exits").iterdir()}
    assert left == {number.name for number in NUMBERS}
