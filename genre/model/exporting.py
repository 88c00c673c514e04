"""A saved model as one file that needs neither this package nor, as ONNX, torch.

The graph holds everything from the waveform of a clip on: log-mel spectrogram, the 80 dB below its peak in 256
steps as features are stored, normalisation, evenly spaced windows, network, softmax, mean over the windows.
What comes before is a few lines in any language and stays outside: decode, mix to mono, resample, trim, scale to
a peak of 1, cut into clips. `docs/USING_MODELS.md` states each; `examples/onnx_without_genre.py` does them.
"""

from __future__ import annotations

import io
import json
import logging
import math
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genre.audio.spectrogram import FLOOR_POWER, mel_filters
from genre.config import PrepareSettings, SpectrogramSettings
from genre.errors import GenreError
from genre.model.calibration import Calibration
from genre.model.classifier import Classifier
from genre.model.decoding import recipe_of
from genre.model.exported import INPUT, OUTPUT
from genre.model.saved_model import ModelCard

OPSET = 18  # what torch's exporter is written for


class WaveformClassifier(nn.Module):
    """Waveforms (batch, samples) with a peak of 1 -> probabilities (batch, classes), not calibrated.

    All of a batch have one length, at least `smallest` samples. Equal to `spectrogram.LogMel`, `features.encode`
    and `classifier.predict` one after the other, for a clip of any length that holds as many different windows
    as are averaged.
    """

    filters: Tensor  # (bins of `PowerSpectrum`, mel bands)

    def __init__(self, classifier: Classifier, card: ModelCard) -> None:
        super().__init__()
        recipe = recipe_of(card.features, card.fingerprint, card.shape, PrepareSettings())
        settings: SpectrogramSettings = recipe.spectrogram
        self.classifier = classifier
        self.n_fft, self.hop = settings.n_fft, settings.hop_length
        self.frames, self.windows = card.frames(), card.eval_windows
        self.range_db = settings.range_db
        self.spectrum = PowerSpectrum(self.n_fft, self.hop)
        filters = torch.from_numpy(mel_filters(recipe.audio.sample_rate, settings).T.copy())
        self.register_buffer("filters", filters[self.spectrum.bins] * self.spectrum.shares.unsqueeze(1))

    @property
    def smallest(self) -> int:
        """Samples of the shortest clip, one window long."""
        return (self.frames - 1) * self.hop

    def forward(self, waveform: Tensor) -> Tensor:
        levels = self._stored(self._levels(waveform))
        batch, bins = levels.shape[0], levels.shape[1]
        steps = torch.arange(self.windows, device=levels.device, dtype=torch.float32) / max(1, self.windows - 1)
        starts = torch.round(steps * (levels.shape[2] - self.frames)).to(torch.int64)
        index = starts.unsqueeze(1) + torch.arange(self.frames, device=levels.device)
        windows = levels[:, :, index].permute(0, 2, 1, 3).reshape(batch * self.windows, bins, self.frames)
        probabilities = self.classifier(windows).softmax(dim=1)
        mean: Tensor = probabilities.reshape(batch, self.windows, -1).mean(dim=1)
        return mean

    def _levels(self, waveform: Tensor) -> Tensor:
        """(batch, samples) -> (batch, bins, frames) in dB."""
        power = self.spectrum(waveform) @ self.filters
        return 10 * torch.log10(power.clamp(min=FLOOR_POWER)).transpose(1, 2)

    def _stored(self, levels: Tensor) -> Tensor:
        """Levels as they come back from `features.encode` and `decode`: in 256 steps below each clip's peak."""
        floor = levels.amax(dim=(1, 2), keepdim=True) - self.range_db
        step = self.range_db / 255
        return torch.round((levels - floor).clamp(min=0) / step) * step + floor


class PowerSpectrum(nn.Module):
    """Waveforms (batch, samples) -> power of each frame's spectrum (batch, frames, len(bins)), in the order of `bins`.

    Frames are centred on multiples of the hop, with zeros outside the signal, under a periodic Hann window. The
    transform is two steps of Cooley and Tukey (1965) as matrix products: onnxruntime's own DFT takes eight times
    as long and one core. With n_fft = rows * row, sample `row * i + j` and bin `k + rows * m`,

        X[k + rows m] = sum over j of e(j (k + rows m) / n_fft) * sum over i of e(i k / rows) * x[row i + j]

    where e(t) = exp(-2 pi i t). The signal is real, so the first half of the k is enough; a bin that comes twice
    then, as itself and as its mirror image, has a share of a half in each place.
    """

    first: Tensor  # (2 * kept, rows, 1, 1): real parts, then imaginary ones
    second: Tensor  # (2, kept, row, 2 * row): what real and imaginary parts add to both
    window: Tensor  # (rows, 1, row)
    bins: Tensor
    shares: Tensor

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.row = _row(n_fft, hop)
        self.rows = rows = n_fft // self.row
        self.kept = rows // 2 + 1
        k, i = np.arange(self.kept), np.arange(rows)
        j, m = np.arange(self.row), np.arange(self.row)
        first = np.exp(-2j * np.pi * np.outer(k, i) / rows)
        bins = k[:, None] + rows * m
        second = np.exp(-2j * np.pi * j[None, :, None] * bins[:, None, :] / n_fft)  # (kept, row, row)
        both = [np.concatenate(parts, axis=2) for parts in ((second.real, second.imag), (-second.imag, second.real))]
        mirrored = np.minimum(bins, n_fft - bins).reshape(-1)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
        self._keep("first", np.concatenate([first.real, first.imag])[:, :, None, None])
        self._keep("second", np.stack(both))
        self._keep("window", hann.reshape(rows, 1, self.row))
        self._keep("shares", 1 / np.bincount(mirrored, minlength=1)[mirrored])
        self.register_buffer("bins", torch.from_numpy(mirrored))

    def forward(self, waveform: Tensor) -> Tensor:
        count = waveform.shape[1] // self.hop + 1
        step = math.gcd(self.hop, self.row)
        padded = nn.functional.pad(waveform, (self.n_fft // 2, self.n_fft - self.n_fft // 2))
        # cut into pieces of a row first, since gathering pieces is much faster than gathering samples
        in_frame = (self.n_fft - self.row) // step + 1
        pieces = padded[:, self._grid((count - 1) * (self.hop // step) + in_frame, step, self.row, 1)]
        framed = pieces[:, self._grid(self.rows, self.row // step, count, self.hop // step)] * self.window
        inner = nn.functional.conv2d(framed, self.first)  # a matrix product over the rows, whatever the length
        real, imaginary = inner[:, : self.kept], inner[:, self.kept :]  # (batch, kept, frames, row)
        outer = real @ self.second[0] + imaginary @ self.second[1]  # (batch, kept, frames, 2 * row)
        power = outer[..., : self.row].square() + outer[..., self.row :].square()
        return power.transpose(1, 2).flatten(2)

    def _grid(self, rows: int, down: int, columns: int, across: int) -> Tensor:
        """Return the numbers down * i + across * j, (rows, columns)."""
        device = self.window.device
        return (torch.arange(rows, device=device) * down).unsqueeze(1) + torch.arange(columns, device=device) * across

    def _keep(self, name: str, values: npt.NDArray[np.float64]) -> None:
        self.register_buffer(name, torch.from_numpy(values.astype(np.float32)))


def _row(n_fft: int, hop: int) -> int:
    """Return the divisor of `n_fft` nearest its square root, of those that divide the hop unless that is far off."""
    divisors = [d for d in range(1, n_fft + 1) if n_fft % d == 0]

    def cost(row: int) -> float:  # multiplications of a sample, and gathering single samples where rows overlap
        return row + n_fft / row / 2 + (0 if hop % row == 0 else 100)

    return min(divisors, key=cost)


def to_program(card: ModelCard, classifier: Classifier) -> torch.export.ExportedProgram:
    """The graph for any batch and length."""
    module = WaveformClassifier(classifier, card).eval()
    rate = card.features["audio"]["sample_rate"]
    samples = max(round(card.features["audio"]["clip_seconds"] * rate), module.smallest)
    shapes = {INPUT: {0: torch.export.Dim("batch"), 1: torch.export.Dim("samples", min=max(module.smallest, 2))}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a GRU keeps its weights in two places
        return torch.export.export(module, (torch.zeros(2, samples),), dynamic_shapes=shapes)


def to_torch_export(card: ModelCard, classifier: Classifier, correct: Calibration) -> bytes:
    """A file for `torch.export.load`, with the metadata in its extra file `genre.json`."""
    buffer = io.BytesIO()
    extra = {"genre.json": json.dumps(metadata(card, correct))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's own, about how it writes weights
        torch.export.save(to_program(card, classifier), buffer, extra_files=extra)
    return buffer.getvalue()


def to_onnx(
    card: ModelCard, classifier: Classifier, correct: Calibration, carried: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """An ONNX file with `waveform` (batch, samples) in, `probabilities` (batch, classes) out, and its metadata.

    `carried` is what `exported.carried` says of the model's folder; without it `Tagger` cannot load the file.
    Raises `GenreError` when the packages for it are missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter asks for it
    except ImportError as error:
        raise GenreError(f"export to ONNX needs {error.name}; pip install 'genre[onnx]'") from None
    program = to_program(card, classifier)
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the exporter thinks of its own parts
        exported = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], verbose=False
        )
    assert exported is not None
    model = exported.model_proto
    _name_axes(model.graph)
    for key, value in (metadata(card, correct) | dict(carried)).items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    model.doc_string = "Music genres from the waveform of a clip; the metadata says what comes before and after."
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def metadata(card: ModelCard, correct: Calibration) -> dict[str, Any]:
    """Everything that somebody who has only the file must know."""
    audio = card.features["audio"]
    return {
        "format": "genre-waveform-classifier 1",
        "classes": card.classes,
        "architecture": card.architecture,
        "sample_rate": audio["sample_rate"],
        "clip_seconds": audio["clip_seconds"],
        "trim_db": audio["trim_db"],
        "min_samples": round(card.window_seconds * audio["sample_rate"]),
        "temperature": correct.temperature,
        "unknown_below": correct.threshold,
        "precision": correct.precision,
        "before": (
            "decode; mean over channels; band-limited resampling to sample_rate; divide by the peak of the track; "
            "trim leading and trailing frames of 2048 samples every 512 whose RMS is trim_db below the loudest; cut "
            "into clips of clip_seconds, keep a rest of at least half a clip, repeat a short one to fill it"
        ),
        "after": (
            "mean of the probabilities over the clips of a track; raise to the power 1 / temperature and divide by "
            "their sum; a best genre below unknown_below is unknown"
        ),
        "spectrogram": card.features["spectrogram"],
    }


def _name_axes(graph: Any) -> None:
    """Call the free axes of the input and the output what they are; torch calls them s16 and the like."""
    sizes = graph.input[0].type.tensor_type.shape.dim
    names = {sizes[0].dim_param: "batch", sizes[1].dim_param: "samples"}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in names:
                size.dim_param = names[size.dim_param]
