"""`genre fetch` from a server on this machine to tracks that the readers of the corpora yield."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from mirrors import PIECE, Mirror, checksum_of, tar_of, zip_of
from scanning import ids, scan

from genre.storage import lease
from ray_jobs.engine import command

GENRES = ("blues", "rock")
GTZAN = tar_of(
    {f"genres/{genre}/{genre}.{number:05d}.au": os.urandom(PIECE) for genre in GENRES for number in (0, 1)}
    | {"genres/bextract_single.mf": b"list", "._genres": b"system"}
)
HEADER = ",set,set,artist,track\n,split,subset,id,genre_top\ntrack_id,,,,\n"
ROWS = "2,training,small,1,Rock\n3,validation,small,2,Rock\n5,test,small,3,Pop\n"
METADATA = zip_of({"fma_metadata/tracks.csv": (HEADER + ROWS).encode()})
SMALL = zip_of({f"fma_small/000/00000{n}.mp3": os.urandom(PIECE) for n in (2, 3, 5)} | {"fma_small/README.txt": b"r"})


def archive(mirror: Mirror, name: str, folder: str, **changes: Any) -> dict[str, Any]:
    content = mirror.files[name]
    size, checksum = len(content), checksum_of(content)
    row = {"file": name, "folder": folder, "size": size, "unpacked": size, "checksum": checksum}
    return row | {"urls": [mirror.url(name)]} | changes


def write_table(home: Path, *archives: dict[str, Any], kind: str = "gtzan", **params: Any) -> list[str]:
    """Write a table with the corpus `x` and return the arguments that fetch it into `home`/music."""
    row = {"title": "small", "licence": "of the tests", "kind": kind, "params": params, "archives": list(archives)}
    (home / "table.yaml").write_text(yaml.safe_dump({"x": row}))
    return ["fetch", "x", f"fetch.table={home / 'table.yaml'}", f"corpus.root={home / 'music'}"]


@pytest.fixture
def gtzan() -> Iterator[Mirror]:
    with Mirror({"genres.tar.gz": GTZAN}) as mirror:
        yield mirror


def test_gtzan_is_fetched_and_read(gtzan: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = write_table(tmp_path, archive(gtzan, "genres.tar.gz", "genres"))
    assert command.main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out == f"genre prepare corpus.kind=gtzan corpus.root={tmp_path / 'music'} output=outputs/x\n"
    assert "licence: of the tests" in shown.err
    assert ids(scan("gtzan", tmp_path / "music")) == ["blues.00000", "blues.00001", "rock.00000", "rock.00001"]

    asked, state = len(gtzan.ranges), snapshot(tmp_path)
    assert command.main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert (len(gtzan.ranges), snapshot(tmp_path)) == (asked, state)


def test_fma_is_fetched_and_read_and_the_rest_of_the_folder_stays(tmp_path: Path) -> None:
    with Mirror({"fma_metadata.zip": METADATA, "fma_small.zip": SMALL}, cut_after=len(SMALL) // 3) as mirror:
        rows = [archive(mirror, f"{name}.zip", name) for name in ("fma_metadata", "fma_small")]
        wrong = checksum_of(b"")
        assert command.main(write_table(tmp_path, rows[0], rows[1] | {"checksum": wrong}, kind="fma")) == 1
        state = snapshot(tmp_path / "music")
        assert state.keys() == {"fma_metadata.zip", "fma_metadata/tracks.csv"}, "the good half stays"
        assert command.main(write_table(tmp_path, *rows, kind="fma", subset="small")) == 0
    tracks = scan("fma", tmp_path / "music", subset="small")
    assert [(track.track_id, track.genre, track.split) for track in tracks] == [
        ("000002", "Rock", "train"),
        ("000003", "Rock", "valid"),
        ("000005", "Pop", "test"),
    ]
    assert all(track.size == PIECE for track in tracks)
    assert state.items() <= snapshot(tmp_path / "music").items()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_fetch_that_is_ended_continues(number: int, tmp_path: Path) -> None:
    with Mirror({"genres.tar.gz": GTZAN}, pause=0.3) as mirror:
        program = [sys.executable, "-m", "ray_jobs.engine.command"]
        program += write_table(tmp_path, archive(mirror, "genres.tar.gz", "genres"))
        part = tmp_path / "music/genres.tar.gz.part"
        job = subprocess.Popen(program, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
        while not part.exists() or part.stat().st_size < 2 * PIECE:
            assert job.poll() is None
            time.sleep(0.02)
        job.send_signal(number)
        _, said = job.communicate()
        if number != signal.SIGKILL:
            assert job.returncode == 1
            assert said.endswith("interrupted; run the same command again to resume\n")
        arrived = part.stat().st_size
        assert 2 * PIECE <= arrived < len(GTZAN)
        mirror.pause = 0
        done = subprocess.run(program, cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert mirror.ranges == ["", f"bytes={arrived}-"]
    assert len(scan("gtzan", tmp_path / "music")) == 4


def test_a_second_fetch_into_the_folder_is_refused_by_its_setting(
    gtzan: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_table(tmp_path, archive(gtzan, "genres.tar.gz", "genres"))
    with lease.held(str(tmp_path / "music"), "fetch", "corpus.root"):
        assert command.main(arguments) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"corpus.root={tmp_path / 'music'} is being written by fetch" in last
    assert last.endswith("choose another corpus.root")


def test_a_disk_without_room_is_found_before_the_first_request(
    gtzan: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = archive(gtzan, "genres.tar.gz", "genres", unpacked=10**18)
    assert command.main(write_table(tmp_path, row)) == 1
    assert "needs about 1,000,000,000.0 GB" in capsys.readouterr().err.splitlines()[-1]
    assert not gtzan.ranges


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "music"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(("full", "enough"), [("32k", "1m"), ("96k", "1m")], ids=["download", "unpack"])
def test_a_disk_that_fills_up_is_one_line_and_costs_nothing(
    full: str, enough: str, small_disk: Path, tmp_path: Path, gtzan: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    row = archive(gtzan, "genres.tar.gz", "genres", size=1, unpacked=1)  # smaller than it is
    subprocess.run(["mount", "-o", f"remount,size={full}", small_disk], check=True)
    assert command.main(write_table(tmp_path, row)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("cannot be written (No space left on device); make room and run again")
    assert not (small_disk / "genres").exists()
    assert not (small_disk / ".genres.unpacking").exists()
    subprocess.run(["mount", "-o", f"remount,size={enough}", small_disk], check=True)
    assert command.main(write_table(tmp_path, row)) == 0
    assert len(scan("gtzan", small_disk)) == 4
    assert all(asked.startswith("bytes=") for asked in gtzan.ranges[1:]), "what was stored is not asked for again"


def test_a_second_fetch_into_the_folder_waits_for_nobody_and_is_refused(tmp_path: Path) -> None:
    with Mirror({"genres.tar.gz": GTZAN}, pause=0.3) as mirror:
        arguments = write_table(tmp_path, archive(mirror, "genres.tar.gz", "genres"))
        job = subprocess.Popen([sys.executable, "-m", "ray_jobs.engine.command", *arguments], cwd=REPOSITORY)
        while not mirror.ranges:
            time.sleep(0.02)
        assert command.main(arguments) == 1
        assert job.wait() == 0


def test_without_a_name_the_corpora_are_listed_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(["fetch"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in ("gtzan", "fma_small", "fma_medium", "fma_large", "fma_full"))
    assert shown.count("licence: ") == 5
    assert not os.listdir(tmp_path)


def test_a_dry_run_says_what_would_be_fetched(
    gtzan: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*write_table(tmp_path, archive(gtzan, "genres.tar.gz", "genres")), "--dry-run"]) == 0
    assert "licence: of the tests" in capsys.readouterr().err
    assert not gtzan.ranges
    assert not (tmp_path / "music").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gtzam"], "fetch.name: 'gtzam' is not known; did you mean 'gtzan'?"),
        (["gtzan", "fma_small"], "fetch.name: found 2 values, gtzan and fma_small; name one"),
        (["gtzan", "corpus.root=s3://bucket/music"], "corpus.root=s3://bucket/music: archives are unpacked on this"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["fetch", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of each file by name."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}
