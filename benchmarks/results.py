"""Compare the results of a job with those of an undisturbed run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from music import tables
from same import differences, steady
from tagged_rows import TOLERANCE, tag_row_difference

from genre.model import checkpoint
from genre.storage import Location

_CONCURRENT = "/board/search/concurrent:"  # the trials at a time: of the machines that were up at the end of the search


def difference(job: str, expected: Location, actual: Location) -> str:
    """Return what differs between the results of two runs; "" where they are equal."""
    compare: dict[str, Callable[[Location, Location], str]] = {
        "prepare": _prepare_difference,
        "train": _model_difference,
        "tune": lambda *outputs: _board_difference("leaderboard", *outputs),
        "evaluate": lambda *outputs: _board_difference("evaluation", *outputs),
        "tag": tags_difference,
    }
    return compare[job](expected, actual)


def _prepare_difference(expected: Location, actual: Location) -> str:
    """Compare clips, tracks, rejects and duplicates, byte for byte, without the names of parts."""
    right, made = tables(expected.address), tables(actual.address)
    return "; ".join(
        f"{name}: {len(right[name])} rows and {len(made[name])}, or other content"
        for name in right
        if not right[name].equals(made[name])
    )


def _model_difference(expected: Location, actual: Location) -> str:
    """Compare the loss of each epoch and the weights."""
    folders = [output / "models" / "crnn" for output in (expected, actual)]
    histories = [(folder / "model.json").read_json()["facts"]["history"] for folder in folders]
    losses = [np.array([epoch["train_loss"] for epoch in history]) for history in histories]
    if losses[0].shape != losses[1].shape:
        return f"{len(losses[0])} epochs and {len(losses[1])}"
    weights = [checkpoint.load(folder)[1].network.state_dict() for folder in folders]
    worst = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])
    worst = max(worst, float(np.abs(losses[0] - losses[1]).max()))
    return f"losses or weights differ by {worst:.3g}" if worst > TOLERANCE else ""


def _board_difference(name: str, expected: Location, actual: Location) -> str:
    """Compare the leaderboards without what depends on the clock, or on how many machines were up."""
    boards = [steady((output / name / "leaderboard.json").read_json(), str(output)) for output in (expected, actual)]
    return "; ".join([line for line in differences(*boards) if not line.startswith(_CONCURRENT)][:5])


def tags_difference(expected: Location, actual: Location) -> str:
    """Compare the rows of the tag tables; computed numbers may differ by rounding."""
    right, made = ((output / "tags" / "ledger.parquet").read_table() for output in (expected, actual))
    return tag_row_difference(right, made)
