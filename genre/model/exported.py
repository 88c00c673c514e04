"""The `.onnx` file that `export` makes of a saved model: what it carries, and its answers through onnxruntime alone.

Its metadata holds `model.json` and `validation.parquet` of the folder that it was made from, so that it is
calibrated, and joined with others, as that folder is. They are read without onnxruntime, in a millisecond: a song is
decoded while the network loads.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genre.audio.recordings import Samples
from genre.config import AudioSettings, PrepareSettings, validate
from genre.errors import ArtifactError
from genre.features import Float32
from genre.model import calibration, saved_model
from genre.model.calibration import Answers
from genre.model.saved_model import ModelCard, SavedModel
from genre.model.waveforms import WaveDecoder, WaveTrack
from genre.storage import Location

INPUT, OUTPUT = "waveform", "probabilities"
CARD_KEY, ANSWERS_KEY = "model", "validation"  # of the metadata
_CLIPS = 2  # answered together: more only take more memory
_METADATA = 14  # the field `metadata_props` of ModelProto, and below it `key` and `value` (onnx.proto)
_KEY, _VALUE = 1, 2


class ExportedModels:
    """One exported file or several that answer with their mean."""

    def __init__(self, models: Sequence[SavedModel], limits: PrepareSettings, threads: int) -> None:
        import onnxruntime  # the slow part of an answer: `read` does without

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # threads that wait sleep: spinning takes a fifth more processor time, and on a busy machine longer by the clock
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors, which are raised as well
        self._sessions = []
        for model in models:
            try:
                session = onnxruntime.InferenceSession(
                    model.place.read_bytes(), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # onnxruntime's own kinds derive from nothing else
                reason = " ".join(str(error).split())[:200]
                raise ArtifactError(f"{model.place}: onnxruntime refuses it ({reason}); export it again") from None
            self._sessions.append(session)
        self.cards = [model.card for model in models]
        self._decoder = decoder(self.cards[0], limits)

    def decode(self, path: str) -> WaveTrack:
        """Clips of one file. Raises `AudioError`."""
        return self._decoder(path)

    def waveform(self, samples: Samples, sample_rate: int) -> WaveTrack:
        """Clips of samples (frames,) or (frames, channels) at `sample_rate` Hz. Raises `AudioError`."""
        return self._decoder.waveform(samples, sample_rate)

    def probabilities(self, tracks: Sequence[WaveTrack]) -> Float32:
        """Return the mean over the models for each clip, not calibrated: (clips, classes)."""
        clips = [clip.samples for track in tracks for clip in track.clips]
        rows = []
        for begin in range(0, len(clips), _CLIPS):
            waves = np.stack(clips[begin : begin + _CLIPS])
            answers = [session.run([OUTPUT], {INPUT: waves})[0] for session in self._sessions]
            rows.append(np.mean(answers, axis=0, dtype=np.float32))
        joined: Float32 = np.concatenate(rows)
        return joined


def decoder(card: ModelCard, limits: PrepareSettings) -> WaveDecoder:
    """Return what decodes files for a model with this card."""
    return WaveDecoder(validate(AudioSettings, card.features["audio"], "audio."), limits)


def read(place: Location) -> SavedModel:
    """Read what an exported file says about itself. Raises `ArtifactError` when it is missing or something else."""
    if not place.exists() or place.is_folder():
        raise ArtifactError(f"{place}: there is no such file; export a model, or point model= at a model's folder")
    facts = metadata(place)
    if CARD_KEY not in facts:
        raise ArtifactError(f"{place}: was not written by this version's export; export the model again")
    try:
        content = json.loads(facts[CARD_KEY])
    except ValueError as error:
        raise ArtifactError(f"{place}: its card is altered ({error}); export the model again") from None
    card, weights = saved_model.parse_card(content, str(place))
    return SavedModel(place, card, weights, _answers(facts, weights, card, place))


def carried(folder: Location) -> dict[str, str]:
    """Return the metadata for an exported file of the model in `folder`, as `read` takes it."""
    found = {CARD_KEY: (folder / saved_model.CARD).read_bytes().decode()}
    if (folder / calibration.FILE).exists():
        found[ANSWERS_KEY] = base64.b64encode((folder / calibration.FILE).read_bytes()).decode()
    return found


def metadata(place: Location) -> dict[str, str]:
    """Return the metadata of an ONNX file. Raises `ArtifactError` when it is none, or cut short."""
    try:
        found = {}
        for number, entry in _fields(memoryview(place.read_bytes())):
            if number == _METADATA:
                texts = {key: bytes(value).decode() for key, value in _fields(entry)}
                found[texts[_KEY]] = texts[_VALUE]
    except (IndexError, KeyError, ValueError):
        raise ArtifactError(f"{place}: not an ONNX file, or cut short; export the model again") from None
    return found


def _answers(facts: Mapping[str, str], weights: str, card: ModelCard, place: Location) -> Answers | None:
    if ANSWERS_KEY not in facts:
        return None
    try:
        # not read_table, which imports pandas where it is installed
        table = pq.ParquetFile(io.BytesIO(base64.b64decode(facts[ANSWERS_KEY]))).read()
    except (ValueError, pa.ArrowException) as error:
        raise ArtifactError(f"{place}: its validation answers are altered ({error}); export the model again") from None
    return calibration.of_table(table, weights, len(card.classes), str(place))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field of a protobuf message that has a length; the others are passed over."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        match tag & 7:
            case 0:
                _, place = _varint(message, place)
            case 1:
                place += 8
            case 2:
                length, place = _varint(message, place)
                if place + length > len(message):
                    raise ValueError("cut short")
                yield tag >> 3, message[place : place + length]
                place += length
            case 5:
                place += 4
            case kind:
                raise ValueError(f"wire type {kind}")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """The number that begins at `place`, and the place after it."""
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
