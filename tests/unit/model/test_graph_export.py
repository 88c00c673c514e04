"""The exported graph answers like the model, without torch and without this package."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import REPOSITORY
from saving import CLASSES, FEATURES, RATE, save_model, song

from genre import Tagger, architectures
from genre.audio import recordings
from genre.config import load
from genre.model import checkpoint, graph_export, waveform_classifier
from genre.model.calibration import Calibration
from genre.settings import AudioSettings
from genre.storage import Location
from ray_jobs import export
from ray_jobs.engine import cli

CALIBRATION = Calibration(temperature=1.5, threshold=0.6, precision=0.8, tracks=60)


def real_music(fallback):
    """Two real songs where they are at hand, else composed ones."""
    real = REPOSITORY.parent / "shared" / "data" / "gtzan-mini"
    songs = [real / genre / f"{genre}.00001.flac" for genre in ("classical", "metal")]
    return (
        songs
        if all(path.exists() for path in songs)
        else [song(fallback / "a.wav"), song(fallback / "b.wav", hertz=90)]
    )


def clips_in(path):
    settings = load(None, FEATURES).audio
    found = recordings.cut(recordings.load(path.read_bytes(), settings), settings)
    return np.stack([clip.samples for clip in found])


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.names())
def test_onnx_answers_like_the_model_on_real_music(name, tmp_path):
    folder = save_model(tmp_path, name)
    card, classifier = checkpoint.load(Location.of(folder))
    session = onnxruntime.InferenceSession(graph_export.to_onnx(card, classifier, CALIBRATION))
    assert session.get_inputs()[0].shape == ["batch", "samples"]
    tagger = Tagger.load(folder)
    for path in real_music(tmp_path):
        expected = tagger.probabilities([tagger.decode(path)])
        (found,) = session.run(None, {"waveform": clips_in(path)})
        assert np.abs(found - expected).max() < 1e-3
        assert np.ptp(expected) > 1e-3  # an answer that says something


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folder of a model, its card and its ONNX file."""
    folder = tmp_path_factory.mktemp("exported")
    card, classifier = checkpoint.load(Location.of(save_model(folder / "model")))
    (folder / "cnn.onnx").write_bytes(graph_export.to_onnx(card, classifier, CALIBRATION))
    return folder, card, classifier


@pytest.mark.parametrize(("n_fft", "hop"), [(2048, 512), (1024, 441), (512, 512), (400, 160), (128, 30), (127, 50)])
def test_the_power_spectrum_is_that_of_a_fourier_transform(n_fft, hop, rng):
    waves = rng.normal(0, 0.2, (2, 3001)).astype(np.float32)
    spectrum = waveform_classifier.PowerSpectrum(n_fft, hop)
    found = spectrum(torch.from_numpy(waves)).numpy()
    padded = np.pad(waves, ((0, 0), (n_fft // 2, n_fft)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft, axis=1)[:, ::hop][:, : 1 + 3001 // hop]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    expected = np.abs(np.fft.rfft(frames * window)) ** 2
    assert found.shape[:2] == expected.shape[:2]
    assert np.abs(found - expected[..., spectrum.bins]).max() < 2e-6 * expected.max()
    # each bin counts once, wherever it is
    assert np.bincount(spectrum.bins, spectrum.shares) == pytest.approx(np.ones(n_fft // 2 + 1))


def test_any_length_and_any_batch(exported, rng):
    folder, card, classifier = exported
    session = onnxruntime.InferenceSession(folder / "cnn.onnx")
    module = waveform_classifier.WaveformClassifier(classifier, card)
    for batch, samples in ((1, module.smallest), (3, RATE), (1, 7 * RATE + 123)):
        waves = rng.normal(0, 0.2, (batch, samples)).astype(np.float32)
        (found,) = session.run(None, {"waveform": waves})
        assert found.shape == (batch, 3)
        assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
        with torch.inference_mode():
            assert np.allclose(found, module(torch.from_numpy(waves)).numpy(), atol=1e-4)


def test_everything_one_must_know_is_in_the_file(exported):
    folder, card, _ = exported
    facts = onnxruntime.InferenceSession(folder / "cnn.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == list(CLASSES)
    assert json.loads(facts["sample_rate"]) == RATE
    assert json.loads(facts["spectrogram"]) == card.features["spectrogram"]
    assert json.loads(facts["temperature"]) == 1.5
    assert json.loads(facts["unknown_below"]) == 0.6
    assert "resampling" in facts["before"]
    assert "clips of a track" in facts["after"]


def test_the_example_needs_neither_torch_nor_this_package(exported, tmp_path):
    folder, _, _ = exported
    path = song(tmp_path / "song.mp3", seconds=5, rate=44100)
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'genre', 'ray', 'onnx', 'librosa']));"
    run = f"sys.argv = ['x', {str(folder / 'cnn.onnx')!r}, {str(path)!r}];"
    example = "exec(open('examples/onnx_without_genre.py').read())"
    command = [sys.executable, "-c", blocked + run + example]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    told = dict(line.split() for line in done.stdout.splitlines() if "%" in line)
    tagger = Tagger.load(folder / "model")
    tagger.calibration = CALIBRATION
    for genre, probability in tagger(path).genres:
        assert float(told[genre].rstrip("%")) / 100 == pytest.approx(probability, abs=2e-3)


def test_torch_export_answers_like_the_model(exported, rng):
    _, card, classifier = exported
    content = graph_export.to_torch_export(card, classifier, CALIBRATION)
    extra = {"genre.json": ""}
    program = torch.export.load(io.BytesIO(content), extra_files=extra).module()
    assert json.loads(extra["genre.json"])["classes"] == list(CLASSES)
    wave = rng.normal(0, 0.2, (3, 2 * RATE)).astype(np.float32)
    expected = waveform_classifier.WaveformClassifier(classifier, card)(torch.from_numpy(wave))
    assert torch.allclose(program(torch.from_numpy(wave)), expected, atol=1e-5)


def test_the_job_writes_and_checks_both_files(exported, tmp_path, capsys):
    folder, _, _ = exported
    settings = [f"model={folder / 'model'}", f"output={tmp_path}"]
    assert cli.main("export", settings) == 0
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["cnn.onnx", "cnn.pt2"]
    assert capsys.readouterr().err.count("export: ") == 2


def test_a_file_that_answers_otherwise_is_not_written(exported, tmp_path, capsys, monkeypatch):
    folder, _, _ = exported
    monkeypatch.setattr(export, "_answer_onnx", lambda content, waves: np.full((2, 3), 1 / 3, np.float32))
    monkeypatch.setattr(graph_export, "to_onnx", lambda *_: b"")
    assert cli.main("export", [f"model={folder / 'model'}", f"output={tmp_path}"]) == 1
    assert "the ONNX file differs from the saved model by" in capsys.readouterr().err
    assert not (tmp_path / "export").exists()


def test_nothing_is_written_when_the_second_file_is_wrong(exported, tmp_path, capsys, monkeypatch):
    folder, _, _ = exported
    monkeypatch.setattr(export, "_answer_program", lambda content, waves: np.full((2, 3), 1 / 3, np.float32))
    assert cli.main("export", [f"model={folder / 'model'}", f"output={tmp_path}"]) == 1
    assert "the torch.export file differs from the saved model by" in capsys.readouterr().err
    assert not (tmp_path / "export").exists()


def test_the_front_end_is_that_of_training_to_the_last_step(exported):
    """Bytes of `features.encode`, for a real clip: the graph's levels are the same 256 steps."""
    from genre import features
    from genre.audio.spectrogram import LogMel

    _, card, classifier = exported
    module = waveform_classifier.WaveformClassifier(classifier, card)
    settings = AudioSettings(clip_seconds=2)
    wave = np.sin(np.arange(2 * RATE) ** 1.2).astype(np.float32)
    log_mel = LogMel(load(None, FEATURES).spectrogram, settings.sample_rate)
    stored = features.decode(*features.encode(log_mel(wave), 80.0), 80.0)
    found = module._stored(module._levels(torch.from_numpy(wave[None])))[0].numpy()
    assert np.abs(found - stored).max() < 80 / 255 + 1e-3
    assert np.mean(np.abs(found - stored) > 1e-2) < 1e-3
