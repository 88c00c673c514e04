"""Tagging a collection in processes of this machine, without Ray, when a process dies or the run is interrupted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path

import pyarrow as pa
import pytest
from saving import save_model, song

from genre import config
from genre.errors import GenreError
from genre.model import checkpoint, graph_export, onnx_file
from genre.model.calibration import Calibration
from genre.model.saved_model import SavedEnsemble
from genre.storage import Location
from genre.tagging import audio_files
from genre.tagging.known_contents import KnownContents
from ray_jobs import tag


@pytest.fixture
def started(tmp_path: Path) -> Generator[pa.Table, None, None]:
    """Return the stream of one worker after its first rows, with many files left."""
    folder = Location.of(save_model(tmp_path / "cnn"))
    content = graph_export.to_onnx(checkpoint.load(folder), Calibration(), onnx_file.metadata_of(folder))
    (tmp_path / "cnn.onnx").write_bytes(content)
    for number in range(40):
        song(tmp_path / "music" / f"{number}.wav", seconds=20, seed=number)
    settings = config.load(None, ["cluster.cpus=1", "tag.batch_files=1"])
    ensemble = SavedEnsemble.read([Location.of(tmp_path / "cnn.onnx")], 0.8)
    stream = tag.local_stream(settings, ensemble, audio_files.list_files(str(tmp_path / "music")), KnownContents.none())
    assert len(next(stream)) == 1
    return stream


def test_a_killed_worker_is_one_line_that_says_how_to_resume(started: Generator[pa.Table, None, None]) -> None:
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(GenreError, match=r"was killed.*run the same command again to resume"):
        list(started)


def test_an_interrupt_does_not_wait_for_a_worker_that_hangs(started: Generator[pa.Table, None, None]) -> None:
    (worker,) = multiprocessing.active_children()
    decoder = int(Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()[0])
    os.kill(decoder, signal.SIGSTOP)
    before = time.monotonic()
    started.close()
    # The pool's own thread may reap the worker first: then `join` returns before `is_alive` knows.
    while worker.is_alive() and time.monotonic() - before < 10:
        time.sleep(0.05)
    assert not worker.is_alive()
    assert time.monotonic() - before < 10  # not decoding.file_timeout_s
    os.kill(decoder, signal.SIGKILL)
