"""The plug-in of beets in examples/, installed next to a real beets, names the genres of its library."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import mutagen
import numpy as np
import pytest
from conftest import REPOSITORY
from installing import install_or_skip, make_environment, run, share
from library import write_tags
from saving import CLASSES, save_model, song

from genre import Tagger
from genre.model import calibration, checkpoint, graph_export, onnx_file
from genre.storage import Location

pytestmark = pytest.mark.slow

SURE, UNSURE = 0.5, 0.95  # precisions that the validation predictions of the model prove, and do not


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install beets and the plug-in; return the bin folder of their environment."""
    folder = tmp_path_factory.mktemp("beets")
    source = shutil.copytree(REPOSITORY / "examples/beets_genremodel", folder / "source")
    wheel = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder))
    subprocess.run([sys.executable, "-m", "pip", "wheel", *wheel, str(source)], check=True)
    commands = make_environment(folder / "environment", next(folder.glob("*.whl")))
    install_or_skip(folder / "environment", "beets>=2.14")
    share(folder / "environment")
    return commands


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an exported model that is sure of every song at `SURE` and of none at `UNSURE`."""
    folder = Location.of(save_model(tmp_path_factory.mktemp("model") / "folder", answers=False))
    labels = np.arange(30) % len(CLASSES)
    probabilities = np.where(np.eye(len(CLASSES))[labels] == 1, 0.34, 0.33).astype(np.float32)
    calibration.save(folder, [str(number) for number in range(30)], labels, probabilities)
    loaded = checkpoint.load(folder)
    content = graph_export.to_onnx(loaded, calibration.Calibration(), onnx_file.metadata_of(folder))
    target = folder.parent / "model.onnx"
    target.write_bytes(content)
    return Path(target.path)


class Beets:
    """A library of beets in a folder of its own."""

    def __init__(self, commands: Path, home: Path, model: Path | str, precision: float, auto: bool) -> None:
        self._commands, self._home = commands, home
        (home / "config.yaml").write_text(
            f"directory: {home / 'library'}\nlibrary: {home / 'beets.db'}\nplugins: [genremodel]\n"
            "import: {copy: yes, write: yes, autotag: no}\n"
            f"genremodel: {{model: '{model}', min_precision: {precision}, auto: {auto}}}\n"
        )

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command, and return what it printed."""
        done = self._run(*arguments, code=code)
        return done.stdout + done.stderr

    def _run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        variables = {"BEETSDIR": str(self._home), "PYTHONPATH": str(REPOSITORY)}
        return run(self._commands / "beet", *arguments, cwd=self._home, code=code, variables=variables)

    def genres(self) -> dict[str, str]:
        """Return the genres of each title in the library."""
        lines = self._run("ls", "-f", "$title=$genres").stdout.splitlines()
        return dict(line.split("=", 1) for line in lines)

    def written(self) -> dict[str, list[str] | None]:
        """Return the genres of each title in the files."""
        files = [mutagen.File(path) for path in (self._home / "library").rglob("*.flac")]
        return {file["title"][0]: file.get("genre") for file in files}


@pytest.fixture
def music(tmp_path: Path) -> Path:
    for number in range(3):
        path = song(tmp_path / f"music/{number}.flac", hertz=200 + 150 * number)
        write_tags(path, title=f"title {number}", artist="A", album="B", genre=["Dixieland"] if number == 0 else [])
    return tmp_path / "music"


def answers(music: Path, model: Path) -> dict[str, str]:
    tagger = Tagger.load(model, SURE)
    return {f"title {number}": tagger(music / f"{number}.flac").genre for number in range(3)}


def test_missing_genres_are_filled_and_others_stay_unless_asked(
    commands: Path, model: Path, music: Path, tmp_path: Path
) -> None:
    beet = Beets(commands, tmp_path, model, SURE, auto=False)
    beet("import", "--quiet", str(music))
    none = {"title 0": "Dixieland", "title 1": "", "title 2": ""}
    assert beet.genres() == none
    expected = answers(music, model)
    assert set(expected.values()) <= set(CLASSES)
    shown = beet("genre", "--pretend", "title:1")
    assert shown.rstrip().endswith(f"title 1: {expected['title 1']}")
    assert beet.genres() == none
    beet("genre", "title:1")
    assert beet.genres() == none | {"title 1": expected["title 1"]}
    beet("genre")
    assert beet.genres() == expected | {"title 0": "Dixieland"}
    assert beet.written() == {title: [genre] for title, genre in beet.genres().items()}
    beet("genre", "--force")
    assert beet.genres() == expected
    assert beet.written() == {title: [genre] for title, genre in expected.items()}


def test_songs_are_named_when_they_are_imported(commands: Path, model: Path, music: Path, tmp_path: Path) -> None:
    beet = Beets(commands, tmp_path, model, SURE, auto=True)
    beet("import", "--quiet", str(music))
    assert beet.genres() == answers(music, model) | {"title 0": "Dixieland"}
    beet("write")
    assert beet.written() == {title: [genre] for title, genre in beet.genres().items()}


def test_unknown_and_unreadable_songs_keep_no_genre(commands: Path, model: Path, music: Path, tmp_path: Path) -> None:
    beet = Beets(commands, tmp_path, model, UNSURE, auto=True)
    beet("import", "--quiet", str(music))
    (broken,) = (tmp_path / "library").rglob("*title 2.flac")
    broken.write_bytes(broken.read_bytes()[:2000])
    shown = beet("-v", "genre")
    assert "unknown, most likely" in shown
    assert "title 2.flac: unreadable: " in shown
    assert beet.genres() == {"title 0": "Dixieland", "title 1": "", "title 2": ""}


@pytest.mark.parametrize(("name", "message"), [("", "genremodel.model is empty"), ("/no.onnx", "no.onnx")])
def test_a_missing_model_is_one_line(commands: Path, name: str, message: str, music: Path, tmp_path: Path) -> None:
    Beets(commands, tmp_path, name, SURE, auto=False)("import", "--quiet", str(music))
    shown = Beets(commands, tmp_path, name, SURE, auto=False)("genre", code=1)
    assert message in shown
    assert shown.count("\n") == 1
