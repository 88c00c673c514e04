"""The tag job, called with its command line."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from conftest import REPOSITORY
from library import tone
from saving import CLASSES, save_model, song
from tag_jobs import rows, run

from genre import Tagger
from genre.config import load
from genre.errors import DeviceError
from genre.model.saved_model import SavedEnsemble
from genre.storage import Location
from genre.tagging import audio_files, tag_rows
from genre.tagging.known_contents import KnownContents
from ray_jobs.engine import cli
from ray_jobs.tagging import distributed

ROOM = ("cluster.cpus=2", "cluster.object_store_mb=200")


@pytest.mark.ray
@pytest.mark.slow
def test_a_collection_is_tagged_on_ray_like_single_songs_and_resumed(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    music = tmp_path / "music"
    for number in range(12):
        song(music / f"{number:02}.wav", hertz=200 + 50 * number, seconds=2.5)
    (music / "bad.mp3").write_bytes(b"no music")
    assert run(str(music), f"model={model}", f"output={tmp_path / 'out'}", *ROOM) == 0
    output = capsys.readouterr().err
    assert "13 files, 0 already done, 13 to do" in output
    assert "12 files tagged, 1 not readable" in output
    tags = pq.read_table(tmp_path / "out/tags/tags.parquet")
    assert len(tags) == 12
    for number in range(12, 14):
        song(music / f"{number:02}.wav", hertz=200 + 50 * number)
    assert run(str(music), f"model={model}", f"output={tmp_path / 'out'}", *ROOM) == 0
    assert "15 files, 13 already done, 2 to do" in capsys.readouterr().err
    again = pq.read_table(tmp_path / "out/tags/tags.parquet")
    assert again.slice(0, 12).equals(tags)
    # a single file, in another process and without Ray
    assert run(str(music / "03.wav"), f"model={model}", f"output={tmp_path / 'single'}") == 0
    single = pq.read_table(tmp_path / "single/tags/tags.parquet").to_pylist()[0]
    together = tags.to_pylist()[3]
    assert single["genre"] == together["genre"]
    assert single["probability"] == pytest.approx(together["probability"], abs=1e-5)


@pytest.mark.parametrize("architecture", ["cnn", "crnn_attention"])
def test_one_song_is_tagged_without_slow_imports_and_writes_nothing(
    architecture: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    model = save_model(tmp_path_factory.mktemp(architecture), architecture)
    path = song(tmp_path / "my song [live].mp3", seconds=20)
    code = (
        "import sys; from ray_jobs.engine import cli;"
        f"done = cli.main('tag', [{str(path)!r}, {f'model={model}'!r}]);"
        "slow = {'ray', 'librosa', 'pandas', 'torchvision', 'torch._dynamo', 'sklearn', 'scipy.io', 'jinja2'};"
        "sys.exit(done or ' '.join(sorted(slow & set(sys.modules))) or 0)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert str(path) in lines[0]
    for genre in CLASSES:
        assert any(genre in line and "%" in line for line in lines[1:])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_several_models_answer_together(
    model: str, music: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_model(tmp_path / "other", "crnn", seed=3)
    assert run(str(music), f"model={model},{other}", f"output={tmp_path / 'a'}") == 0
    assert "cnn + crnn" in capsys.readouterr().err
    assert run(str(music), f"model={model}, {other}", f"output={tmp_path / 'b'}") == 0
    assert (tmp_path / "a/tags/tags.csv").read_text() == (tmp_path / "b/tags/tags.csv").read_text()


def test_paths_from_find_are_tagged(
    model: str, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With folders and covers among them, each path once; files that were tagged before keep their rows."""
    (music / "cover.jpg").write_bytes(b"no music")
    (music / "1.flac").rename(music / "new\nline.flac")
    settings = (f"model={model}", f"output={tmp_path / 'out'}", "min_precision=0")
    assert run(str(music / "0.flac"), *settings) == 0
    found = subprocess.run(["find", music, "-not", "-name", "0*", "-print0"], capture_output=True, check=True).stdout
    for option, paths, message in (
        ("-", found + found + b"gone.flac\0", "3 files, 0 already done, 3 to do"),
        ("--stdin0", found, "2 files, 2 already done, 0 to do"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(paths)))
        assert run(option, *settings) == 0
        assert message in capsys.readouterr().err
        named = [Path(row["path"]).name for row in rows(tmp_path / "out/tags/tags.csv")]
        assert named == ["0.flac", "2.flac", "new\nline.flac"]
    assert "gone.flac" in (tmp_path / "out/tags/failures.csv").read_text()
    for paths, message in ((b"", "found nothing"), (b"cover.jpg\0", "found 1 paths, of which none is an audio file")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(paths)))
        assert run("-", *settings) == cli.WRONG_USE
        assert message in capsys.readouterr().err


def test_a_disk_that_is_away_takes_no_row_out_of_the_tables(
    model: str, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its mount point is empty then. What was deleted or moved is gone, with its folder or without."""
    disk, album = music / "disk", music / "artist/album"
    for number, folder in enumerate((disk / "a", disk / "b", album)):
        tone(folder / "song.flac", seed=10 + number, seconds=2)
    settings = (f"model={model}", f"output={tmp_path / 'out'}", "min_precision=0")
    table = tmp_path / "out/tags/tags.csv"

    def names() -> list[str]:
        return [os.path.relpath(row["path"], music) for row in rows(table)]

    assert run(str(music), *settings) == 0
    before = {path: path.read_bytes() for path in table.parent.iterdir()}
    listed = "".join(f"{row['path']}\0" for row in rows(table)).encode()
    os.rename(disk, tmp_path / "away")
    for found, message in (
        (None, f"{disk} is empty or denied, and files below it were tagged earlier; mount its disk"),
        (listed, f"{disk}/a/song.flac, which was tagged earlier, is away, and {disk}/a is missing or empty; mount it"),
    ):
        disk.mkdir(exist_ok=True)
        (music / "new.flac").write_bytes((music / "0.flac").read_bytes())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(found or b"")))
        capsys.readouterr()
        assert run("-" if found else str(music), *settings) == 1
        assert message in capsys.readouterr().err
        assert {path: path.read_bytes() for path in table.parent.iterdir()} == before
    disk.rmdir()
    os.rename(tmp_path / "away", disk)
    shutil.rmtree(disk / "b")
    (music / "new.flac").unlink()
    (music / "1.flac").unlink()
    os.rename(album, music / "moved")
    (music / "artist/cover.jpg").touch()
    capsys.readouterr()
    assert run(str(music), *settings) == 0
    assert names() == ["0.flac", "2.flac", "disk/a/song.flac", "moved/song.flac"]
    (music / "0.flac").unlink()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(music / "0.flac") + b"\0")))
    assert run("-", *settings) == 1  # the only file of the list could not be read
    assert names() == ["2.flac", "disk/a/song.flac", "moved/song.flac"]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ("inputs=nowhere", 2, "inputs=.*nowhere does not exist"),
        ("inputs=", 2, "inputs is empty"),
        ("model=nowhere", 1, "no model here"),
        ("min_precision=1", 2, "min_precision: found 1; must be less than 1"),
    ],
)
def test_wrong_use_is_one_line(
    model: str, music: Path, change: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert run(f"inputs={music}", f"model={model}", change) == code
    output = capsys.readouterr().err
    assert re.search(message, output)
    assert output.count("\n") == 1


def test_altered_weights_are_refused_before_any_work(
    music: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(save_model(tmp_path / "altered"))
    weights = model / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert run(str(music), f"model={model}", f"output={tmp_path / 'out'}") == 1
    output = capsys.readouterr().err
    assert "not the weights that model.json lists" in output
    assert output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_inputs_are_one_line(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert run(str(tmp_path / "empty"), f"model={model}") == 2
    assert "holds no audio file" in capsys.readouterr().err
    (tmp_path / "bad.mp3").write_bytes(b"no music")
    assert run(str(tmp_path / "bad.mp3"), f"model={model}") == 1
    output = capsys.readouterr()
    assert "bad.mp3: unsupported: Format not recognised; nothing to tag" in output.err
    assert (output.err + output.out).count("\n") == 1


@pytest.mark.parametrize("count", [1, 3])
def test_the_job_fails_when_no_file_could_be_read(
    model: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when the failures are known from an earlier run; one readable file is enough for success."""
    music = tmp_path / "music"
    music.mkdir()
    for number in range(count):
        (music / f"{number}.mp3").write_bytes(b"no music")
    settings = (f"model={model}", f"output={tmp_path / 'out'}")
    for done in (0, count):
        assert run(str(music), *settings) == cli.FAILED
        error = capsys.readouterr().err
        assert f"{done} already done" in error
        assert ("none of 3 files could be read" in error) is (count == 3)
        assert "0.mp3: unsupported: Format not recognised;" in error.splitlines()[-1]
    assert run(str(music / "0.mp3"), *settings) == cli.FAILED
    song(music / "song.wav")
    assert run(str(music), *settings) == cli.OK


def test_models_of_other_genres_are_refused_before_any_work(
    model: str, music: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also with another number of genres, when their probabilities could not be averaged."""
    for number, classes in enumerate([("folk", "jazz", "rock"), ("blues", "folk", "jazz", "rock")]):
        other = save_model(tmp_path / str(number), classes=classes)
        assert run(str(music), f"model={model},{other}", f"output={tmp_path / 'out'}") == 1
        output = capsys.readouterr().err
        assert "only models of the same genres can be combined" in output
        assert output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def too_late(*_: object) -> None:
    raise TimeoutError("a block was never named")


@pytest.mark.ray
@pytest.mark.parametrize("at_once", [1, 2])
def test_tasks_decode_and_an_actor_with_a_gpu_names_the_genres(model: str, tmp_path: Path, at_once: int) -> None:
    """Also where two GPUs are asked for, one after the other or together, and the second never comes.

    The one exists on paper only, so that the models compute on the CPU.
    """
    for number in range(12):
        song(tmp_path / "music" / f"{number:02}.wav", hertz=200 + 50 * number, seconds=2.5)
    (tmp_path / "music" / "bad.mp3").write_bytes(b"no music")
    files = audio_files.list_files(str(tmp_path / "music"))
    expected = tag_rows.tag_files(Tagger.load(model, threads=1), files, KnownContents.none()).sort_by("path")
    config, ensemble = load(None, ["tag.batch_files=2"]), SavedEnsemble.read([Location.of(model)], 0.8)
    ray.init(address="local", num_cpus=2, num_gpus=1, object_store_memory=200 * 2**20, include_dashboard=False)
    earlier = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(300)
    try:
        collection = distributed.TagWork.of(config, ensemble, files, KnownContents.none(), workers=2)
        rows = pa.concat_tables(distributed.on_both(collection, 2, 4, 0.5, "cpu", at_once)).sort_by("path")
        with pytest.raises(DeviceError, match="torch sees no GPU"):
            list(distributed.on_both(collection, 1, 2, 1.0, "cuda"))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)
        ray.shutdown()
    names = ["path", "content", "seconds", "reason", "message"]
    assert rows.select(names).equals(expected.select(names))
    for row, other in zip(rows.to_pylist(), expected.to_pylist(), strict=True):
        assert row["probabilities"] == (other["probabilities"] and pytest.approx(other["probabilities"], abs=1e-5))
