"""The forecast of `prepare` and `tag` on --dry-run: amounts, times and the price, from a sample; nothing is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from music import config_of, write_music
from saving import save_model, song

from genre.config import to_yaml
from ray_jobs.engine import cli, command
from ray_jobs.engine.forecast import PendingWork


def test_a_sample_is_scaled_to_all_tracks() -> None:
    work = PendingWork(tracks=1000, sampled=10, music_seconds=36.0, core_seconds=72.0)
    assert list(work.lines(cpus_now=2, max_cpus=20, price=0.5)) == [
        "1000 tracks to do, 1.00 hours of music, 2.00 core-hours by a sample of 10 on this machine",
        "about 1 h 00 min on 2 CPUs now; about 6 min 00 s on cluster.max_cpus=20; and about 10 s to start",
        "price: 1.00 at 0.5 a core-hour, without the time in which machines boot",
    ]


def test_a_cluster_without_machines_has_no_time_of_now() -> None:
    work = PendingWork(tracks=10, sampled=10, music_seconds=36.0, core_seconds=72.0)
    assert list(work.lines(cpus_now=0, max_cpus=0, price=None))[1:] == [
        "no CPU is up now; set cluster.max_cpus to get the time with this number of CPUs"
    ]


def test_prepare_forecasts_what_is_left_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_music(tmp_path / "music")
    (tmp_path / "music/genre0/bad.wav").write_bytes(b"no music")
    (tmp_path / "run.yaml").write_text(to_yaml(config_of(tmp_path / "music", tmp_path / "out")))
    arguments = ["prepare", "--config", str(tmp_path / "run.yaml"), "--dry-run", "--price-per-core-hour", "3600"]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().err
    assert re.search(
        r"prepare: 19 tracks to do, \d+\.\d seconds of music, \d+\.\d core-seconds by a sample of 19", printed
    )
    assert re.search(r"prepare: price: \d+\.\d+ at 3600 a core-hour", printed)
    assert re.search(r"prepare: features of \d+\.\d [kM]B", printed)
    assert not (tmp_path / "out").exists()


def test_tag_forecasts_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        song(tmp_path / "music" / f"{number}.wav", hertz=200 + 100 * number)
    (tmp_path / "music/bad.mp3").write_bytes(b"no music")
    model, output = save_model(tmp_path / "model"), tmp_path / "out"
    arguments = ["tag", str(tmp_path / "music"), f"model={model}", f"output={output}", "--dry-run"]
    assert command.main([*arguments, "cluster.max_cpus=7"]) == 0
    printed = capsys.readouterr().err
    assert "tag: 4 files to do" in printed
    assert "on cluster.max_cpus=7" in printed
    assert "price" not in printed
    assert not output.exists()


@pytest.mark.parametrize("job", ["prepare", "tag"])
def test_what_is_missing_is_named(job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    music = {"prepare": ["corpus.kind=folder", f"corpus.root={tmp_path}/none"], "tag": [f"inputs={tmp_path}/none"]}
    assert command.main([job, *music[job], f"output={tmp_path}/out", "--dry-run"]) in (cli.FAILED, cli.WRONG_USE)
    printed = capsys.readouterr()
    assert "error: " in printed.err
    assert f"output: {tmp_path}/out" in printed.out  # the settings are printed nevertheless


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prepare", "--price-per-core-hour", "1"], "belongs to `prepare --dry-run`, `tune --dry-run`"),
        (["train", "--dry-run", "--price-per-core-hour", "1"], "belongs to `prepare --dry-run`, `tune --dry-run`"),
        (["prepare", "--dry-run", "--price-per-core-hour", "-1"], "found '-1', must be a number of at least 0"),
        (["prepare", "--dry-run", "--price-per-core-hour", "cheap"], "found 'cheap', must be a number of at least 0"),
    ],
)  # fmt: skip
def test_wrong_prices_are_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    printed = capsys.readouterr().err
    assert says in printed
    assert printed.count("\n") == 1


def test_a_dry_run_with_a_forecast_is_short_in_a_terminal(tmp_path: Path) -> None:
    write_music(tmp_path / "music")
    music = ["corpus.kind=folder", f"corpus.root={tmp_path}/music", f"output={tmp_path}/out"]
    terminal, inner = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "ray_jobs.engine.command", "prepare", "--dry-run", *music],
        stdout=inner,
        stderr=inner,
        cwd=REPOSITORY,
        env=os.environ | {"COLUMNS": "80", "TERM": "dumb"},
        check=False,
    )
    os.close(inner)
    printed = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert done.returncode == 0, printed
    assert "kind: folder" in printed
    assert "# the other settings have their defaults" in printed
    assert "tracks to do" in printed
    assert len(printed.splitlines()) < 24, printed
