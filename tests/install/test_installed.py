"""The installed package, built as sdist and wheel: with all dependencies, and with those of requirements-light.lock."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import boards
import pytest
from conftest import REPOSITORY
from installing import install_or_skip, make_environment, run, share
from saving import CLASSES, save_model, song

from genre import Tagger, report
from genre.model import checkpoint, graph_export, onnx_file
from genre.model.calibration import UNKNOWN, Calibration
from genre.storage import Location

pytestmark = pytest.mark.slow

SKIPPED = shutil.ignore_patterns(".*", "outputs", "build", "*.egg-info", "__pycache__")
LIGHT_MEGABYTES = 600
HEAVY = ("torch", "torchaudio", "torchvision", "ray", "librosa", "scipy", "cv2", "pandas", "sklearn", "numba")


def rows(file_path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a CSV file by the name of the track's file."""
    with open(file_path, encoding="utf-8", newline="") as file:
        return {Path(row["path"]).name: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist from a copy of the checkout, and the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("build")
    shutil.copytree(REPOSITORY, folder / "source", ignore=SKIPPED)
    build = ("-m", "uv", "build", "--offline", "--no-build-isolation", "--python", sys.executable, "--quiet")
    run(sys.executable, *build, "--out-dir", folder / "dist", folder / "source", cwd=folder)
    return next((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def full(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of an environment with the wheel, which finds all other packages in this environment."""
    folder = tmp_path_factory.mktemp("full")
    commands = make_environment(folder, wheel)
    share(folder)
    return commands


@pytest.fixture(scope="module")
def light(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of an environment with the wheel and the packages of requirements-light.lock."""
    folder = tmp_path_factory.mktemp("light")
    commands = make_environment(folder, wheel)
    install_or_skip(folder, "--require-hashes", "-r", REPOSITORY / "requirements-light.lock")
    return commands


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a calibrated model, `folder`, and its export, `model.onnx`."""
    folder = tmp_path_factory.mktemp("model")
    model = Location.of(save_model(folder / "folder", "resnet"))
    loaded = checkpoint.load(model)
    content = graph_export.to_onnx(loaded, Calibration(), onnx_file.metadata_of(model))
    (folder / "model.onnx").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ten songs and two files that are not readable."""
    folder = tmp_path_factory.mktemp("music")
    for number in range(10):  # more than `genre tag` reads without starting workers
        song(folder / f"{number}.mp3", seconds=3 + number / 2, hertz=90 + 60 * number, rate=44100, seed=number)
    (folder / "bad.mp3").write_bytes(b"no music")
    (folder / "empty.wav").write_bytes(b"")
    return folder


def test_the_installed_package_works_outside_the_checkout(full: Path, model: Path, music: Path, tmp_path: Path) -> None:
    where = run(full / "python", "-c", "import genre; print(genre.__file__)", cwd=tmp_path).stdout
    assert where.startswith(str(full.parent))
    assert "tracks_per_genre" in run(full / "genre", "demo", "--dry-run", cwd=tmp_path).stdout
    for name in ("folder", "model.onnx"):
        answer = run(full / "genre", "tag", music / "3.mp3", f"model={model / name}", cwd=tmp_path).stdout
        assert all(genre in answer for genre in CLASSES)


def test_the_installed_package_writes_the_report(full: Path, tmp_path: Path) -> None:
    """With its templates, styles and scripts, which could be missing from the wheel."""
    report.write(boards.full(), Location.of(tmp_path / "out" / "leaderboard"))
    (tmp_path / "out" / "leaderboard" / "leaderboard.html").unlink()
    run(full / "genre", "leaderboard", f"output={tmp_path / 'out'}", cwd=tmp_path)
    page = (tmp_path / "out" / "leaderboard" / "leaderboard.html").read_text()
    assert "<style>" in page
    assert "<script" in page


def test_a_light_install_is_small_and_without_the_heavy_packages(light: Path, tmp_path: Path) -> None:
    size = sum(path.lstat().st_size for path in light.parent.rglob("*") if path.is_file())
    assert size < LIGHT_MEGABYTES * 1e6
    find = f"import importlib.util as u; print([name for name in {HEAVY} if u.find_spec(name)])"
    assert run(light / "python", "-c", find, cwd=tmp_path).stdout.strip() == "[]"


def test_a_light_install_gives_the_tags_of_a_full_one(light: Path, model: Path, music: Path, tmp_path: Path) -> None:
    code = (
        "import json, sys; from genre import Tagger;"
        f"tagger = Tagger.load({str(model / 'model.onnx')!r});"
        f"results = tagger.tag({[str(path) for path in sorted(music.iterdir())]!r});"
        "clips = [[[m.start, m.end, m.genres] for m in tags.timeline] for tags in results];"
        "print(json.dumps([[t.genre, t.genres, c, t.reason] for t, c in zip(results, clips)]));"
        f"print(sorted(set(sys.modules) & set({HEAVY})), tagger.calibration.temperature)"
    )
    answers, rest = run(light / "python", "-c", code, cwd=tmp_path).stdout.splitlines()
    expected = Tagger.load(model / "folder")
    assert expected.calibration.temperature != 1
    heavy, temperature = rest.rsplit(maxsplit=1)
    assert heavy == "[]"
    assert float(temperature) == pytest.approx(expected.calibration.temperature)
    for tags, (genre, genres, timeline, reason) in zip(
        expected.tag(sorted(music.iterdir())), json.loads(answers), strict=True
    ):
        assert (genre, reason) == (tags.genre, tags.reason)
        assert dict(genres) == pytest.approx(dict(tags.genres), abs=1e-3)
        assert [row[:2] for row in timeline] == [[m.start, m.end] for m in tags.timeline]
        for row, moment in zip(timeline, tags.timeline, strict=True):
            assert dict(row[2]) == pytest.approx(dict(moment.genres), abs=1e-3)


def test_a_light_install_tags_a_collection_as_a_full_one_does_and_resumes(
    light: Path, full: Path, model: Path, music: Path, tmp_path: Path
) -> None:
    arguments = (f"inputs={music}", "min_precision=0.9")
    first = run(light / "genre", "tag", *arguments, f"model={model / 'model.onnx'}", "output=light", cwd=tmp_path)
    assert "12 files, 0 already done, 12 to do" in first.stderr
    assert "10 files tagged, 2 not readable" in first.stderr
    run(full / "genre", "tag", *arguments, f"model={model / 'folder'}", "output=full", "cluster.cpus=2", cwd=tmp_path)
    light_rows, full_rows = (rows(tmp_path / kind / "tags/tags.csv") for kind in ("light", "full"))
    assert list(light_rows) == list(full_rows)
    for name, row in light_rows.items():
        assert row.keys() == full_rows[name].keys()
        assert row["genre"] == full_rows[name]["genre"]
        assert float(row["probability"]) == pytest.approx(float(full_rows[name]["probability"]), abs=1e-3)
    assert any(row["genre"] == UNKNOWN for row in light_rows.values())
    for name in ("failures.csv", "timeline.csv"):
        lines = [(tmp_path / kind / "tags" / name).read_text().splitlines() for kind in ("light", "full")]
        assert lines[0][0] == lines[1][0]
        assert len(lines[0]) == len(lines[1])
    again = run(light / "genre", "tag", *arguments, f"model={model / 'model.onnx'}", "output=light", cwd=tmp_path)
    assert "12 files, 12 already done, 0 to do" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tune",), "`genre tune` needs "),
        (("train",), "`genre train` needs "),
        (("tag", "song.mp3", "model=folder"), "folder: the folder of a model needs "),
        (("serve", "model=model.onnx"), "`genre serve` needs "),
        (("explain", "song.mp3", "model=model.onnx"), "`genre explain` needs "),
    ],
)
def test_a_light_install_names_the_missing_package(
    light: Path, model: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    song(tmp_path / "song.mp3")
    error = run(light / "genre", *arguments, cwd=tmp_path, code=2).stderr
    assert message in error
    assert f"install it with pip install '.[{'serve' if arguments[0] == 'serve' else 'train'}]'" in error
    assert error.count("\n") == 1


def test_a_bad_model_file_is_reported_in_one_line(light: Path, model: Path, music: Path, tmp_path: Path) -> None:
    content = (model / "model.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    (tmp_path / "other.onnx").write_bytes(b"not a model")
    for name in ("cut", "other", "missing"):
        error = run(light / "genre", "tag", music / "1.mp3", f"model={name}.onnx", cwd=tmp_path, code=1).stderr
        assert f"{name}.onnx" in error
        assert error.count("\n") == 1
    assert not any(path.is_dir() for path in tmp_path.iterdir())
