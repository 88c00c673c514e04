"""Export a saved model to one ONNX file that takes waveforms, and to one for torch.export, in OUTPUT/export.

    genre export model=outputs/gtzan/models/resnet output=outputs/gtzan

The answers of both files are compared with those of the saved model before they are written.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
import torch

from genre.config import Config
from genre.errors import ConfigError, GenreError
from genre.features import Float32
from genre.model import calibration, checkpoint, exported, exporting
from genre.model.calibration import Calibration
from genre.model.classifier import Classifier, predict
from genre.model.decoding import Decoder, clips_of, recipe_of
from genre.model.saved_model import ModelCard
from genre.storage import Location
from ray_jobs.engine import cli
from ray_jobs.tag import find_models

_TOLERANCE = 1e-3  # in probability


def run(config: Config) -> None:
    """Write OUTPUT/export/<architecture>.onnx and .pt2. Raises `GenreError` when they do not answer like the model."""
    folders = find_models(config)
    if len(folders) > 1:
        raise ConfigError("export takes one model; name one with model=FOLDER")
    card, classifier = checkpoint.load(folders[0])
    answers = calibration.load(folders[0], len(card.classes))
    correct = calibration.fit([answers], config.tag.precision)
    expected = _expected(card, classifier)
    target = Location.of(config.output) / "export"
    name = card.architecture
    onnx = exporting.to_onnx(card, classifier, correct, exported.carried(folders[0]))
    _compare("ONNX", _answer_onnx(onnx, _noise(card)), expected)
    program = exporting.to_torch_export(card, classifier, correct)
    _compare("torch.export", _answer_program(program, _noise(card)), expected)
    for suffix, content in (("onnx", onnx), ("pt2", program)):  # both are right, or nothing is written
        place = target / f"{name}.{suffix}"
        place.write_bytes(content)
        _say(place, content, correct)


def _noise(card: ModelCard) -> Float32:
    """Two clips (2, samples) with a peak of 1."""
    samples = round(card.features["audio"]["clip_seconds"] * card.features["audio"]["sample_rate"])
    noise = np.random.default_rng(0).normal(0, 1, (2, samples)) * np.linspace(0.1, 1, samples)
    scaled: Float32 = (noise / np.abs(noise).max(axis=1, keepdims=True)).astype(np.float32)
    return scaled


def _expected(card: ModelCard, classifier: Classifier) -> Float32:
    """What the saved model says to the same clips on the way that training and tagging take."""
    settings = Config().prepare
    decoder = Decoder(recipe_of(card.features, card.fingerprint, card.shape, settings))
    tracks = [decoder.waveform(clip, decoder.recipe.audio.sample_rate) for clip in _noise(card)]
    answer: Float32 = predict(classifier, clips_of(tracks, card.shape), card.frames(), card.eval_windows)
    return answer


def _answer_onnx(content: bytes, waveforms: Float32) -> Float32:
    try:
        import onnxruntime
    except ImportError:
        raise GenreError(
            "export checks its file with onnxruntime, which is missing; pip install 'genre[onnx]'"
        ) from None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    answer: Float32 = session.run(None, {exported.INPUT: waveforms})[0]
    return answer


def _answer_program(content: bytes, waveforms: Float32) -> Float32:
    import io

    with torch.inference_mode():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's own, about the bytes that it reads
            program = torch.export.load(io.BytesIO(content))
        answer: Float32 = program.module()(torch.from_numpy(waveforms)).numpy()
    return answer


def _compare(kind: str, found: Float32, expected: Float32) -> None:
    difference = float(np.abs(found - expected).max())
    if not difference < _TOLERANCE:
        raise GenreError(
            f"the {kind} file differs from the saved model by {difference:.2g} in probability, {_TOLERANCE:g} is "
            "allowed; nothing was written, please report this"
        )


def _say(place: Location, content: bytes, correct: Calibration) -> None:
    known = f"temperature {correct.temperature:.2f}" if correct.tracks else "not calibrated"
    cli.console().print(f"export: {place}, {len(content) / 1e6:.1f} MB, {known}", markup=False)


if __name__ == "__main__":
    sys.exit(cli.main("export"))
