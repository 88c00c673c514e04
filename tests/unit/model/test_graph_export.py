"""The exported graph gives the model's probabilities, without torch and without this package."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import REPOSITORY
from saving import CLASSES, FEATURES, RATE, save_model, song

from genre import Tagger, architectures, features
from genre.arrays import Float32
from genre.audio import recordings
from genre.audio.spectrogram import LogMel
from genre.config import load
from genre.model import checkpoint, graph_export, waveform_classifier
from genre.model.calibration import Calibration
from genre.model.checkpoint import LoadedModel
from genre.settings import AudioSettings
from genre.storage import Location
from ray_jobs import export
from ray_jobs.engine import cli

CALIBRATION = Calibration(temperature=1.5, thresholds=(0.6, 0.6, 0.7), precision=0.8, tracks=60)


Exported = tuple[Path, LoadedModel]


def real_music(fallback: Path) -> list[Path]:
    """Return two real songs where they are available, or else two composed ones."""
    real = REPOSITORY.parent / "shared" / "data" / "gtzan-mini"
    songs = [real / genre / f"{genre}.00001.flac" for genre in ("classical", "metal")]
    return (
        songs
        if all(path.exists() for path in songs)
        else [song(fallback / "a.wav"), song(fallback / "b.wav", hertz=90)]
    )


def clips_in(path: Path) -> Float32:
    settings = load(None, FEATURES).audio
    clips = recordings.cut(recordings.load(path.read_bytes(), settings), settings)
    return np.stack([clip.samples for clip in clips])


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.names())
def test_onnx_gives_the_probabilities_of_the_model_on_real_music(name: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path, name, window_norm=True)
    loaded = checkpoint.load(Location.of(folder))
    session = onnxruntime.InferenceSession(graph_export.to_onnx(loaded, CALIBRATION))
    assert session.get_inputs()[0].shape == ["batch", "samples"]
    tagger = Tagger.load(folder)
    for path in real_music(tmp_path):
        expected, _ = tagger._ensemble.predict([tagger.decode(path)])
        (result,) = session.run(None, {"waveform": clips_in(path)})
        assert np.abs(result - expected).max() < 1e-3
        assert np.ptp(expected) > 1e-3  # the model distinguishes the clips


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return a folder with a model and its ONNX file, and the model."""
    folder = tmp_path_factory.mktemp("exported")
    loaded = checkpoint.load(Location.of(save_model(folder / "model", window_norm=True)))
    (folder / "cnn.onnx").write_bytes(graph_export.to_onnx(loaded, CALIBRATION))
    return folder, loaded


@pytest.mark.parametrize(("n_fft", "hop"), [(2048, 512), (1024, 441), (512, 512), (400, 160), (128, 30), (127, 50)])
def test_the_power_spectrum_is_that_of_a_fourier_transform(n_fft: int, hop: int, rng: np.random.Generator) -> None:
    waves = rng.normal(0, 0.2, (2, 3001)).astype(np.float32)
    spectrum = waveform_classifier.PowerSpectrum(n_fft, hop)
    result = spectrum(torch.from_numpy(waves)).numpy()
    padded = np.pad(waves, ((0, 0), (n_fft // 2, n_fft)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft, axis=1)[:, ::hop][:, : 1 + 3001 // hop]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    expected = np.abs(np.fft.rfft(frames * window)) ** 2
    assert result.shape[:2] == expected.shape[:2]
    assert np.abs(result - expected[..., spectrum.bins]).max() < 2e-6 * expected.max()
    # each bin counts once, at whichever positions it occurs
    assert np.bincount(spectrum.bins, spectrum.shares) == pytest.approx(np.ones(n_fft // 2 + 1))


def test_any_length_and_any_batch_size(exported: Exported, rng: np.random.Generator) -> None:
    folder, loaded = exported
    session = onnxruntime.InferenceSession(folder / "cnn.onnx")
    module = waveform_classifier.WaveformClassifier(loaded)
    for batch, samples in ((1, module.min_samples), (3, RATE), (1, 7 * RATE + 123)):
        waves = rng.normal(0, 0.2, (batch, samples)).astype(np.float32)
        (result,) = session.run(None, {"waveform": waves})
        assert result.shape == (batch, 3)
        assert np.allclose(result.sum(axis=1), 1, atol=1e-5)
        with torch.inference_mode():
            assert np.allclose(result, module(torch.from_numpy(waves)).numpy(), atol=1e-4)


def test_the_metadata_holds_everything_that_a_user_needs(exported: Exported) -> None:
    folder, loaded = exported
    facts = onnxruntime.InferenceSession(folder / "cnn.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == list(CLASSES)
    assert json.loads(facts["sample_rate"]) == RATE
    assert json.loads(facts["spectrogram"]) == loaded.card.features["spectrogram"]
    assert json.loads(facts["temperature"]) == 1.5
    assert json.loads(facts["unknown_below"]) == [0.6, 0.6, 0.7]
    assert "resampling" in facts["before"]
    assert "clips of a track" in facts["after"]


def test_the_example_needs_neither_torch_nor_this_package(exported: Exported, tmp_path: Path) -> None:
    folder, _ = exported
    path = song(tmp_path / "song.mp3", seconds=5, rate=44100)
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'genre', 'ray', 'onnx', 'librosa']));"
    run = f"sys.argv = ['x', {str(folder / 'cnn.onnx')!r}, {str(path)!r}];"
    example = "exec(open('examples/onnx_without_genre.py').read())"
    command = [sys.executable, "-c", blocked + run + example]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    shares = dict(line.split() for line in done.stdout.splitlines() if "%" in line)
    tagger = Tagger.load(folder / "model")
    tagger.calibration = CALIBRATION
    for genre, probability in tagger(path).genres:
        assert float(shares[genre].rstrip("%")) / 100 == pytest.approx(probability, abs=2e-3)


def test_torch_export_gives_the_probabilities_of_the_model(exported: Exported, rng: np.random.Generator) -> None:
    _, loaded = exported
    content = graph_export.to_torch_export(loaded, CALIBRATION)
    extra = {"genre.json": ""}
    program = torch.export.load(io.BytesIO(content), extra_files=extra).module()
    assert json.loads(extra["genre.json"])["classes"] == list(CLASSES)
    wave = rng.normal(0, 0.2, (3, 2 * RATE)).astype(np.float32)
    expected = waveform_classifier.WaveformClassifier(loaded)(torch.from_numpy(wave))
    assert torch.allclose(program(torch.from_numpy(wave)), expected, atol=1e-5)


def test_the_job_writes_and_checks_both_files(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = exported
    settings = [f"model={folder / 'model'}", f"output={tmp_path}"]
    assert cli.main("export", settings) == 0
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["cnn.onnx", "cnn.pt2"]
    assert capsys.readouterr().err.count("export: ") == 2


def test_a_file_with_other_probabilities_is_not_written(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = exported
    monkeypatch.setattr(export, "_answer_onnx", lambda *_: np.full((2, 3), 1 / 3, np.float32))
    monkeypatch.setattr(graph_export, "to_onnx", lambda *_: b"")
    assert cli.main("export", [f"model={folder / 'model'}", f"output={tmp_path}"]) == 1
    assert "the ONNX file differs from the saved model by" in capsys.readouterr().err
    assert not (tmp_path / "export").exists()


def test_no_file_is_written_when_the_second_is_wrong(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = exported
    monkeypatch.setattr(export, "_answer_program", lambda *_: np.full((2, 3), 1 / 3, np.float32))
    assert cli.main("export", [f"model={folder / 'model'}", f"output={tmp_path}"]) == 1
    assert "the torch.export file differs from the saved model by" in capsys.readouterr().err
    assert not (tmp_path / "export").exists()


def test_the_graph_rounds_levels_to_the_steps_of_stored_features(exported: Exported) -> None:
    _, loaded = exported
    module = waveform_classifier.WaveformClassifier(loaded)
    settings = AudioSettings(clip_seconds=2)
    wave = np.sin(np.arange(2 * RATE) ** 1.2).astype(np.float32)
    log_mel = LogMel(load(None, FEATURES).spectrogram, settings.sample_rate)
    stored = features.decode(*features.encode(log_mel(wave), 80.0), 80.0)
    result = module._stored(module._levels(torch.from_numpy(wave[None])))[0].numpy()
    assert np.abs(result - stored).max() < 80 / 255 + 1e-3
    assert np.mean(np.abs(result - stored) > 1e-2) < 1e-3
