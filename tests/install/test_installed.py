"""The package as it is installed: from its sdist and wheel, away from the checkout, in full and light."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import boards
import pytest
from conftest import REPOSITORY
from saving import CLASSES, save_model, song

from genre import Tagger, report
from genre.model import checkpoint, exported, exporting
from genre.model.calibration import UNKNOWN, Calibration
from genre.storage import Location

pytestmark = pytest.mark.slow

SKIPPED = shutil.ignore_patterns(".*", "outputs", "build", "*.egg-info", "__pycache__")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAY_"))}
LIGHT_MEGABYTES = 600
HEAVY = ("torch", "torchaudio", "torchvision", "ray", "librosa", "scipy", "cv2", "pandas", "sklearn", "numba")


def run(*command: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def rows(place: Path) -> dict[str, dict[str, str]]:
    with open(place, encoding="utf-8", newline="") as file:
        return {Path(row["path"]).name: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the sdist, which is built from a copy of the checkout."""
    place = tmp_path_factory.mktemp("build")
    shutil.copytree(REPOSITORY, place / "source", ignore=SKIPPED)
    build = ("-m", "uv", "build", "--offline", "--no-build-isolation", "--python", sys.executable, "--quiet")
    run(sys.executable, *build, "--out-dir", place / "dist", place / "source", cwd=place)
    return next((place / "dist").glob("*.whl"))


def environment(place: Path, wheel: Path) -> Path:
    """A new environment with the wheel and none of its dependencies; returns its folder of commands."""
    venv.create(place, with_pip=False)
    run(sys.executable, "-m", "pip", "--python", place, "install", "--no-deps", "--no-index", wheel, cwd=place)
    return place / "bin"


@pytest.fixture(scope="module")
def full(wheel, tmp_path_factory) -> Path:
    """The commands of an environment that sees the packages of this one behind its own `genre`."""
    place = tmp_path_factory.mktemp("full")
    commands = environment(place, wheel)
    site = place / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))
    return commands


@pytest.fixture(scope="module")
def light(wheel, tmp_path_factory) -> Path:
    """The commands of an environment made from requirements-light.lock alone."""
    place = tmp_path_factory.mktemp("light")
    commands = environment(place, wheel)
    lock = ("--require-hashes", "-r", str(REPOSITORY / "requirements-light.lock"))
    install = [sys.executable, "-m", "pip", "--python", str(place), "install", "--quiet", "--retries", "1", *lock]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        unreachable = ("NewConnectionError", "Max retries", "No matching distribution", "ConnectTimeout")
        assert any(sign in done.stdout + done.stderr for sign in unreachable), done.stderr
        pytest.skip(f"no package registry in reach: {done.stderr.strip().splitlines()[-1]}")
    return commands


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A folder with a calibrated model, `folder`, and its exported file `model.onnx`."""
    place = tmp_path_factory.mktemp("model")
    folder = Location.of(save_model(place / "folder", "resnet"))
    card, classifier = checkpoint.load(folder)
    content = exporting.to_onnx(card, classifier, Calibration(), exported.carried(folder))
    (place / "model.onnx").write_bytes(content)
    return place


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("music")
    for number in range(10):  # more than are answered in one process
        song(place / f"{number}.mp3", seconds=3 + number / 2, hertz=90 + 60 * number, rate=44100, seed=number)
    (place / "bad.mp3").write_bytes(b"no music")
    (place / "empty.wav").write_bytes(b"")
    return place


def test_the_installed_package_works_away_from_the_checkout(full, model, music, tmp_path):
    where = run(full / "python", "-c", "import genre; print(genre.__file__)", cwd=tmp_path).stdout
    assert where.startswith(str(full.parent))
    assert "tracks_per_genre" in run(full / "genre", "demo", "--dry-run", cwd=tmp_path).stdout
    for name in ("folder", "model.onnx"):
        answer = run(full / "genre", "tag", music / "3.mp3", f"model={model / name}", cwd=tmp_path).stdout
        assert all(genre in answer for genre in CLASSES)


def test_the_installed_package_writes_the_report(full, tmp_path):
    """With its templates, styles and scripts, which a wheel could lack."""
    report.write(boards.full(), Location.of(tmp_path / "out" / "leaderboard"))
    (tmp_path / "out" / "leaderboard" / "leaderboard.html").unlink()
    run(full / "genre", "leaderboard", f"output={tmp_path / 'out'}", cwd=tmp_path)
    page = (tmp_path / "out" / "leaderboard" / "leaderboard.html").read_text()
    assert "<style>" in page
    assert "<script" in page


def test_a_light_install_is_small_and_lacks_what_it_should(light, tmp_path):
    size = sum(path.lstat().st_size for path in light.parent.rglob("*") if path.is_file())
    assert size < LIGHT_MEGABYTES * 1e6
    find = f"import importlib.util as u; print([name for name in {HEAVY} if u.find_spec(name)])"
    assert run(light / "python", "-c", find, cwd=tmp_path).stdout.strip() == "[]"


def test_a_light_install_answers_like_a_full_one(light, model, music, tmp_path):
    code = (
        "import json, sys; from genre import Tagger;"
        f"tagger = Tagger.load({str(model / 'model.onnx')!r});"
        f"found = tagger.tag({[str(path) for path in sorted(music.iterdir())]!r});"
        "clips = [[[m.start, m.end, m.genres] for m in tags.timeline] for tags in found];"
        "print(json.dumps([[t.genre, t.genres, c, t.reason] for t, c in zip(found, clips)]));"
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
        assert [moment[:2] for moment in timeline] == [[m.start, m.end] for m in tags.timeline]
        for found, moment in zip(timeline, tags.timeline, strict=True):
            assert dict(found[2]) == pytest.approx(dict(moment.genres), abs=1e-3)


def test_a_light_install_tags_a_collection_like_a_full_one_and_resumes(light, full, model, music, tmp_path):
    wanted = (f"inputs={music}", "tag.precision=0.5")
    first = run(light / "genre", "tag", *wanted, f"model={model / 'model.onnx'}", "output=light", cwd=tmp_path)
    assert "12 files, 0 already done, 12 to do" in first.stderr
    assert "10 files tagged, 2 not readable" in first.stderr
    run(full / "genre", "tag", *wanted, f"model={model / 'folder'}", "output=full", "cluster.cpus=2", cwd=tmp_path)
    here, there = (rows(tmp_path / kind / "tags/tags.csv") for kind in ("light", "full"))
    assert list(here) == list(there)
    for name, row in here.items():
        assert row.keys() == there[name].keys()
        assert row["genre"] == there[name]["genre"]
        assert float(row["probability"]) == pytest.approx(float(there[name]["probability"]), abs=1e-3)
    assert any(row["genre"] == UNKNOWN for row in here.values())
    for name in ("failures.csv", "timeline.csv"):
        kinds = [(tmp_path / kind / "tags" / name).read_text().splitlines() for kind in ("light", "full")]
        assert kinds[0][0] == kinds[1][0]
        assert len(kinds[0]) == len(kinds[1])
    again = run(light / "genre", "tag", *wanted, f"model={model / 'model.onnx'}", "output=light", cwd=tmp_path)
    assert "12 files, 12 already done, 0 to do" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tune",), "`genre tune` needs "),
        (("train",), "`genre train` needs torch"),
        (("tag", "song.mp3", "model=folder"), "folder: the folder of a model needs "),
        (("explain", "song.mp3", "model=model.onnx"), "`genre explain` needs "),
    ],
)
def test_a_light_install_names_what_a_job_needs(light, model, tmp_path, arguments, says):
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    song(tmp_path / "song.mp3")
    told = run(light / "genre", *arguments, cwd=tmp_path, code=2).stderr
    assert says in told
    assert "pip install 'genre[train]'" in told
    assert told.count("\n") == 1


def test_damage_costs_one_line(light, model, music, tmp_path):
    content = (model / "model.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    (tmp_path / "other.onnx").write_bytes(b"not a model")
    for name in ("cut", "other", "missing"):
        told = run(light / "genre", "tag", music / "1.mp3", f"model={name}.onnx", cwd=tmp_path, code=1).stderr
        assert f"{name}.onnx" in told
        assert told.count("\n") == 1
    assert not any(path.is_dir() for path in tmp_path.iterdir())
