"""The job `leaderboard`, called with its command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from boards import board, network

from genre import report
from genre.storage import Location, lease
from ray_jobs.engine import cli


def test_a_board_is_not_rewritten_while_another_job_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "leaderboard"
    report.write(board(network("cnn", 0.6)), Location.of(folder))
    (folder / "leaderboard.md").unlink()
    arguments = ([f"output={tmp_path}"], [f"output={tmp_path}", f"leaderboard.compare=[{tmp_path}]"])
    with lease.held(str(tmp_path), "tune"):
        for refused in arguments:
            assert cli.main("leaderboard", refused) == 1
            assert "is being written by tune" in capsys.readouterr().err
    assert not (folder / "leaderboard.md").exists()
    assert not (tmp_path / "compared").exists()
    for accepted in arguments:
        assert cli.main("leaderboard", accepted) == 0
    assert (folder / "leaderboard.md").exists()
    assert (tmp_path / "compared/leaderboard.md").exists()
    assert not (tmp_path / lease.FILE).exists()


def test_an_output_without_a_board_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("leaderboard", [f"output={tmp_path / 'wrong'}"]) == 1
    assert "run `genre tune` or `genre evaluate` with this output first" in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()
