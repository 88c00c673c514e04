"""Predictions of one or several exported models, by onnxruntime. The counterpart for folders is `torch_ensemble`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime

from genre.arrays import Float32
from genre.errors import ArtifactError, one_line
from genre.model.decoder import Decoder, WaveformTrack
from genre.model.onnx_file import INPUT, OUTPUT, read_model
from genre.model.saved_model import SavedModel

_BATCH = 2  # clips; larger batches take more memory and are not faster


class OnnxEnsemble:
    """One or several exported files, whose probabilities are averaged. See `saved_model.Ensemble`."""

    def __init__(self, models: Sequence[SavedModel], decoder: Decoder, threads: int) -> None:
        self.cards = [model.card for model in models]
        self.decoder = decoder
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # let idle threads sleep: spinning costs a fifth more CPU time, and is slower on a busy machine
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # only errors, which are also raised
        self._sessions = [_session(model, options) for model in models]

    def predict(self, tracks: Sequence[WaveformTrack]) -> tuple[Float32, None]:
        """Return the probabilities of each clip. An exported file gives no embedding."""
        clips = [clip.samples for track in tracks for clip in track.clips]
        rows = []
        for begin in range(0, len(clips), _BATCH):
            waves = np.stack(clips[begin : begin + _BATCH])
            predictions = [session.run([OUTPUT], {INPUT: waves})[0] for session in self._sessions]
            rows.append(np.mean(predictions, axis=0, dtype=np.float32))
        return np.concatenate(rows), None


def _session(model: SavedModel, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    content = read_model(model.location, model.weights)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base class
        reason = one_line(error)[:200]
        raise ArtifactError(f"{model.location}: onnxruntime cannot load it ({reason}); export it again") from None
