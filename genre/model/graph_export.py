"""Export a saved model to one file that works without this package; an ONNX file also works without torch.

The file holds the graph of `waveform_classifier`. It does not hold the steps before: decode, mix to mono, resample,
trim, scale to a peak of 1, cut into clips. `docs/USING_MODELS.md` describes them, `examples/onnx_without_genre.py`
implements them. `onnx_file` reads the metadata.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from genre.errors import GenreError, install
from genre.model.calibration import Calibration
from genre.model.card import ModelCard
from genre.model.checkpoint import LoadedModel
from genre.model.onnx_file import INPUT, OUTPUT
from genre.model.waveform_classifier import WaveformClassifier

OPSET = 18  # the version that torch's exporter implements


def to_program(model: LoadedModel) -> torch.export.ExportedProgram:
    """Return the graph, for clips (batch, samples) of any number and length. Raises like `ModelCard.recipe`."""
    module = WaveformClassifier(model).eval()
    audio = model.card.recipe().audio
    samples = max(round(audio.clip_seconds * audio.sample_rate), module.min_samples)
    shapes = {INPUT: {0: torch.export.Dim("batch"), 1: torch.export.Dim("samples", min=max(module.min_samples, 2))}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about a GRU, whose weights are stored twice
        return torch.export.export(module, (torch.zeros(2, samples),), dynamic_shapes=shapes)


def to_torch_export(model: LoadedModel, calibration: Calibration) -> bytes:
    """Return the content of a file for `torch.export.load`, with the metadata in its extra file `genre.json`."""
    buffer = io.BytesIO()
    extra = {"genre.json": json.dumps(metadata(model.card, calibration))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about how torch writes weights
        torch.export.save(to_program(model), buffer, extra_files=extra)
    return buffer.getvalue()


def to_onnx(
    model: LoadedModel, calibration: Calibration, model_metadata: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """Return an ONNX file with input `waveform` (batch, samples) and output `probabilities` (batch, classes).

    `model_metadata` is the result of `onnx_file.metadata_of` for the model's folder; without it `Tagger` cannot load
    the file. Raises `GenreError` when the packages for ONNX are missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise GenreError(f"export to ONNX needs {error.name}; {install('onnx')}") from None
    program = to_program(model)
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        exported = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], verbose=False
        )
    assert exported is not None
    proto = exported.model_proto
    _name_axes(proto.graph)
    for key, value in (metadata(model.card, calibration) | dict(model_metadata)).items():
        proto.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    proto.doc_string = "Music genres from the waveform of a clip; the metadata describes the steps before and after."
    onnx.checker.check_model(proto)
    content: bytes = proto.SerializeToString()
    return content


def metadata(card: ModelCard, calibration: Calibration) -> dict[str, Any]:
    """Return what is needed to use the file without this package."""
    audio = card.recipe().audio
    return {
        "format": "genre-waveform-classifier 1",
        "classes": card.classes,
        "architecture": card.architecture,
        "sample_rate": audio.sample_rate,
        "clip_seconds": audio.clip_seconds,
        "trim_db": audio.trim_db,
        "min_samples": round(card.window_seconds * audio.sample_rate),
        "temperature": calibration.temperature,
        "unknown_below": list(calibration.thresholds) or [0.0] * len(card.classes),
        "precision": calibration.precision,
        "before": (
            "decode; mean over channels; band-limited resampling to sample_rate; divide by the peak of the track; "
            "trim leading and trailing frames of 2048 samples every 512 whose RMS is trim_db below the loudest; cut "
            "into clips of clip_seconds, keep a rest of at least half a clip, repeat a short one to fill it"
        ),
        "after": (
            "mean of the probabilities over the clips of a track; raise to the power 1 / temperature and divide by "
            "their sum; a best genre below its unknown_below is unknown"
        ),
        "spectrogram": card.features["spectrogram"],
    }


def _name_axes(graph: Any) -> None:
    """Name the dynamic axes of input and output `batch` and `samples`, in place of torch's names such as s16."""
    sizes = graph.input[0].type.tensor_type.shape.dim
    names = {sizes[0].dim_param: "batch", sizes[1].dim_param: "samples"}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in names:
                size.dim_param = names[size.dim_param]
