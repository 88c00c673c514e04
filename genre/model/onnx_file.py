"""The metadata of an exported `.onnx` file, read in a millisecond without onnxruntime.

It holds `model.json` and `validation.parquet` of the folder that was exported, so that the file is calibrated and
combined with other models in the same way as the folder.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from genre.errors import ArtifactError
from genre.model import calibration
from genre.model.calibration import ValidationPredictions
from genre.model.card import CARD, ModelCard, parse_card
from genre.storage import Location

INPUT, OUTPUT = "waveform", "probabilities"
CARD_KEY, VALIDATION_KEY = "model", "validation"  # of the metadata
_METADATA = 14  # the field `metadata_props` of ModelProto, and below it `key` and `value` (onnx.proto)
_KEY, _VALUE = 1, 2


def read(location: Location) -> tuple[ModelCard, str, ValidationPredictions | None]:
    """Return the card of an exported file, the SHA-256 of the exported weights, and its validation predictions.

    Raises `ArtifactError` when the file is missing, altered or not an exported model.
    """
    if not location.exists() or location.is_folder():
        raise ArtifactError(f"{location}: no such file; export a model, or point model= at a model's folder")
    facts = metadata(location.read_bytes(), location)
    card, weights = _card(facts, location)
    return card, weights, _validation(facts, weights, card, location)


def read_model(location: Location, weights: str) -> bytes:
    """Return the exported file. Raises `ArtifactError` unless `weights` is the SHA-256 of the exported weights."""
    content = location.read_bytes()
    if _card(metadata(content, location), location)[1] != weights:
        raise ArtifactError(f"{location}: replaced by another model since the job began; run it again")
    return content


def metadata_of(folder: Location) -> dict[str, str]:
    """Return the metadata for an exported file of the model in `folder`, as `read` expects it."""
    texts = {CARD_KEY: (folder / CARD).read_bytes().decode()}
    if (folder / calibration.FILE).exists():
        texts[VALIDATION_KEY] = base64.b64encode((folder / calibration.FILE).read_bytes()).decode()
    return texts


def metadata(content: bytes, location: Location) -> dict[str, str]:
    """Return the metadata of the ONNX file at `location`, whose bytes are `content`.

    Raises `ArtifactError` when it is truncated or of another format.
    """
    try:
        entries = {}
        for number, entry in _fields(memoryview(content)):
            if number == _METADATA:
                texts = {key: bytes(value).decode() for key, value in _fields(entry)}
                entries[texts[_KEY]] = texts[_VALUE]
    except (IndexError, KeyError, ValueError):
        raise ArtifactError(f"{location}: not an ONNX file, or truncated; export the model again") from None
    return entries


def _card(facts: Mapping[str, str], location: Location) -> tuple[ModelCard, str]:
    """Return the card of an exported file, and the SHA-256 of the exported weights."""
    if CARD_KEY not in facts:
        raise ArtifactError(f"{location}: holds no model card; export the model again with this version")
    try:
        content = json.loads(facts[CARD_KEY])
    except ValueError as error:
        raise ArtifactError(f"{location}: its card is altered ({error}); export the model again") from None
    return parse_card(content, str(location))


def _validation(
    facts: Mapping[str, str], weights: str, card: ModelCard, location: Location
) -> ValidationPredictions | None:
    if VALIDATION_KEY not in facts:
        return None
    try:
        # not read_table, which imports pandas where it is installed
        table = pq.ParquetFile(io.BytesIO(base64.b64decode(facts[VALIDATION_KEY]))).read()
    except (ValueError, pa.ArrowException) as error:
        raise ArtifactError(
            f"{location}: its validation predictions are altered ({error}); export the model again"
        ) from None
    return calibration.of_table(table, weights, len(card.classes), str(location))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of each length-delimited field of a protobuf message; skip other wire types."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        match tag & 7:
            case 0:
                _, position = _varint(message, position)
            case 1:
                position += 8
            case 2:
                length, position = _varint(message, position)
                if position + length > len(message):
                    raise ValueError("truncated")
                yield tag >> 3, message[position : position + length]
                position += length
            case 5:
                position += 4
            case kind:
                raise ValueError(f"wire type {kind}")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the variable-length integer at `position`, and the position after it."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
