"""Exported files give the same tags as the folders that they were made from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import soundfile
from conftest import REPOSITORY
from saving import CLASSES, FEATURES, save_model, song

from genre import Tagger, Tags
from genre.errors import ArtifactError, AudioError, ConfigError
from genre.model import checkpoint, graph_export, onnx_file
from genre.model.calibration import Calibration
from genre.model.card import read_card
from genre.model.saved_model import SavedEnsemble
from genre.settings import DecodingSettings
from genre.storage import Location

Pair = tuple[list[str], list[Path]]


def export(folder: str, target: Path) -> Path:
    loaded = checkpoint.load(Location.of(folder))
    target.write_bytes(graph_export.to_onnx(loaded, Calibration(), onnx_file.metadata_of(Location.of(folder))))
    return target


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Return two models, each as a folder and as a file."""
    parent = tmp_path_factory.mktemp("pair")
    folders = [save_model(parent / name, name, seed=seed) for seed, name in enumerate(("cnn", "crnn"))]
    return folders, [export(folder, parent / f"{Path(folder).name}.onnx") for folder in folders]


def assert_close(result: Tags, expected: Tags) -> None:
    assert dict(result.genres) == pytest.approx(dict(expected.genres), abs=1e-3)
    assert (result.genre, result.seconds, result.content) == (expected.genre, expected.seconds, expected.content)
    assert [(m.start, m.end) for m in result.timeline] == [(m.start, m.end) for m in expected.timeline]


@pytest.mark.parametrize("precision", [0, 0.5, 0.99])
def test_a_file_gives_the_tags_of_its_folder_at_any_precision(pair: Pair, tmp_path: Path, precision: float) -> None:
    folders, files = pair
    path = song(tmp_path / "song.mp3", seconds=5, rate=44100)
    expected, result = Tagger.load(folders[0], precision), Tagger.load(files[0], precision)
    assert result.calibration == expected.calibration
    assert result.calibration.tracks
    assert result.cards == expected.cards
    assert_close(result(path), expected(path))


def test_several_files_give_the_tags_of_their_folders(pair: Pair, tmp_path: Path) -> None:
    folders, files = pair
    path = song(tmp_path / "song.flac", seconds=3)
    expected, result = Tagger.load(folders), Tagger.load(files)
    assert result.calibration == expected.calibration
    assert_close(result(path), expected(path))
    assert SavedEnsemble.read([Location.of(file) for file in files], 0.8).weights == [card_weights(f) for f in folders]


def card_weights(folder: str) -> str:
    return read_card(Location.of(folder))[1]


def test_arrays_and_unreadable_files(pair: Pair, tmp_path: Path) -> None:
    folders, files = pair
    expected, result = Tagger.load(folders[0]), Tagger.load(files[0], limits=DecodingSettings(max_track_seconds=4))
    wave, rate = soundfile.read(song(tmp_path / "song.wav", seconds=3, rate=48000), dtype="float32")
    assert_close(result.tag_arrays([wave], rate)[0], expected.tag_arrays([wave], rate)[0])
    (tmp_path / "bad.mp3").write_bytes(b"no music")
    songs = [tmp_path / "bad.mp3", song(tmp_path / "long.wav", seconds=5), tmp_path / "missing.wav"]
    assert [tags.reason for tags in result.tag(songs)] == ["unsupported", "absurd_header", "unreadable"]
    with pytest.raises(AudioError, match=r"decoding\.max_track_seconds=4"):
        result(songs[1])


def test_the_metadata_is_read_as_onnx_reads_it(pair: Pair) -> None:
    _, files = pair
    expected = {entry.key: entry.value for entry in onnx.load(files[0]).metadata_props}
    assert onnx_file.metadata(files[0].read_bytes(), Location.of(files[0])) == expected
    assert {"model", "validation", "classes", "temperature"} <= expected.keys()


def test_a_model_without_answers_is_not_calibrated(tmp_path: Path) -> None:
    file = export(save_model(tmp_path / "silent", answers=False), tmp_path / "silent.onnx")
    assert Tagger.load(file).calibration.tracks == 0


def test_models_that_do_not_fit_are_refused(pair: Pair, tmp_path: Path) -> None:
    folders, files = pair
    with pytest.raises(ArtifactError, match="a folder and an exported file cannot be combined"):
        Tagger.load([files[0], folders[1]])
    bands = export(
        save_model(tmp_path / "bands", features=(*FEATURES, "spectrogram.hop_length=256")), tmp_path / "b.onnx"
    )
    with pytest.raises(ArtifactError, match=r"spectrogram\.hop_length is 256, expected 512"):
        Tagger.load([files[0], bands])
    with pytest.raises(ConfigError, match="name the model's folder"):
        Tagger.load(files[0]).models  # noqa: B018


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[: len(content) // 2], "not an ONNX file, or truncated"),
        (lambda content: b"", "holds no model card"),
        (lambda content: b"\x00\xff" * 100, "not an ONNX file, or truncated"),
        (lambda content: content.replace(b'"schema_version": 1', b'"schema_version": 9'), "not a model of version 1"),
        (lambda content: content.replace(b'"clip_seconds"', b'"clip_secondz"'), "do not fit the model"),
        (lambda content: content.replace(b'"trim_db": 60.0', b'"trim_db": -9.0'), "do not fit the model"),
        (lambda content: content.replace(b'"trim_db": 60.0', b'"trim_db": 59.0'), "do not fit the model"),
        (lambda content: content.replace(b'"audio": {', b'"sound": {'), "cannot take audio"),
        (
            lambda content: content.replace(b'"weights": "', b'"weights": "0', 1),
            "not an ONNX file|belongs to other weights",
        ),
    ],
)
def test_an_altered_file_is_refused(pair: Pair, tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    content = pair[1][0].read_bytes()
    altered = change(content)
    assert altered != content
    (tmp_path / "altered.onnx").write_bytes(altered)
    with pytest.raises(ArtifactError, match=message):
        Tagger.load(tmp_path / "altered.onnx")
    with pytest.raises(ArtifactError, match="no such file"):
        Tagger.load(tmp_path / "missing.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ArtifactError, match="no such file"):
        Tagger.load(tmp_path / "folder.onnx")


def test_a_file_that_was_replaced_since_it_was_read_is_refused(pair: Pair, tmp_path: Path) -> None:
    """Otherwise a worker would give the answers of one model the temperature and thresholds of another."""
    file = tmp_path / "model.onnx"
    file.write_bytes(pair[1][0].read_bytes())
    ensemble = SavedEnsemble.read([Location.of(file)], precision=0.5)
    file.write_bytes(pair[1][1].read_bytes())
    with pytest.raises(ArtifactError, match=r"model\.onnx: replaced by another model since the job began"):
        ensemble.load(DecodingSettings())


def test_a_file_where_a_folder_is_needed_is_refused(pair: Pair) -> None:
    with pytest.raises(ArtifactError, match="an exported file, where a model's folder is needed"):
        checkpoint.load(Location.of(pair[1][0]))


def test_a_file_is_used_without_slow_imports(pair: Pair, tmp_path: Path) -> None:
    path = song(tmp_path / "song.wav")
    heavy = ("torch", "ray", "librosa", "scipy.fft", "cv2", "pandas", "sklearn", "numba", "jinja2", "onnx")
    code = (
        "import sys; from ray_jobs.engine import command;"
        f"done = command.main(['tag', {str(path)!r}, 'model={pair[1][0]}']);"
        f"sys.exit(done or ' '.join(sorted(set({heavy}) & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    assert all(genre in done.stdout for genre in CLASSES)
