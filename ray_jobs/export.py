"""Export a saved model to one ONNX file that takes waveforms, and to one for torch.export, in OUTPUT/export.

    genre export model=outputs/gtzan/models/resnet output=outputs/gtzan

The predictions of both files are compared with those of the saved model before they are written.
"""

from __future__ import annotations

import io
import sys
import warnings

import numpy as np
import torch

from genre.arrays import Float32
from genre.errors import GenreError, install
from genre.features.preparing.tracks import TrackPreparer, clips_of
from genre.model import checkpoint, graph_export, onnx_file
from genre.model.calibration import Calibration
from genre.model.card import ModelCard
from genre.model.checkpoint import LoadedModel
from genre.model.decoder import Decoder
from genre.model.saved_model import SavedEnsemble
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import cli
from ray_jobs.engine.models import find_model

_TOLERANCE = 1e-3  # in probability


def run(config: Config) -> None:
    """Write OUTPUT/export/<name>.onnx and .pt2. Raises `GenreError` when their predictions differ."""
    folder = find_model(config, "export")
    model = checkpoint.load(folder)
    calibration = SavedEnsemble.read([folder], config.min_precision).calibration
    clips = _noise(model.card)
    expected = _expected(model, clips)
    onnx = graph_export.to_onnx(model, calibration, onnx_file.metadata_of(folder))
    _compare("ONNX", _answer_onnx(onnx, clips), expected)
    program = graph_export.to_torch_export(model, calibration)
    _compare("torch.export", _answer_program(program, clips), expected)
    for suffix, content in (("onnx", onnx), ("pt2", program)):  # both are correct, or nothing is written
        target = Location.of(config.output) / "export" / f"{model.card.name}.{suffix}"
        target.write_bytes(content)
        _say(target, content, calibration)


def _noise(card: ModelCard) -> Float32:
    """Return two clips of noise with a peak of 1: (2, samples)."""
    audio = card.recipe().audio
    samples = round(audio.clip_seconds * audio.sample_rate)
    noise = np.random.default_rng(0).normal(0, 1, (2, samples)) * np.linspace(0.1, 1, samples)
    scaled: Float32 = (noise / np.abs(noise).max(axis=1, keepdims=True)).astype(np.float32)
    return scaled


def _expected(model: LoadedModel, waveforms: Float32) -> Float32:
    """Return the probabilities of the saved model for clips, computed as in training and tagging."""
    decoder = Decoder(TrackPreparer, model.card.recipe())
    tracks = [decoder.waveform(clip, decoder.recipe.audio.sample_rate) for clip in waveforms]
    return model.predict(clips_of(tracks, model.card.shape))


def _answer_onnx(content: bytes, waveforms: Float32) -> Float32:
    try:
        import onnxruntime
    except ImportError:
        raise GenreError(
            f"export checks the ONNX file with onnxruntime, which is not installed; {install('onnx')}"
        ) from None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    answer: Float32 = session.run(None, {onnx_file.INPUT: waveforms})[0]
    return answer


def _answer_program(content: bytes, waveforms: Float32) -> Float32:
    with torch.inference_mode():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about how torch reads weights
            program = torch.export.load(io.BytesIO(content))
        answer: Float32 = program.module()(torch.from_numpy(waveforms)).numpy()
    return answer


def _compare(kind: str, answer: Float32, expected: Float32) -> None:
    difference = float(np.abs(answer - expected).max())
    if not difference < _TOLERANCE:
        raise GenreError(
            f"the {kind} file differs from the saved model by {difference:.2g} in probability, {_TOLERANCE:g} is "
            "allowed; nothing was written, please report this"
        )


def _say(target: Location, content: bytes, calibration: Calibration) -> None:
    calibrated = f"temperature {calibration.temperature:.2f}" if calibration.tracks else "not calibrated"
    cli.say(f"export: {target}, {len(content) / 1e6:.1f} MB, {calibrated}")


if __name__ == "__main__":
    sys.exit(cli.main("export"))
