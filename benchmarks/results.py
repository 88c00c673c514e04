"""Compare the results of a job with those of an undisturbed run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from music import tables
from same import differences, steady
from tagged_rows import TOLERANCE, tag_row_difference

from genre.model import checkpoint
from genre.retrieval import embedding_table
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
        "embed": _embeddings_difference,
        "pretrain": _body_difference,
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
    return _training_difference([output / "models" / "crnn" for output in (expected, actual)], "train_loss")


def _body_difference(expected: Location, actual: Location) -> str:
    """Compare a pretrained body as a model."""
    return _training_difference([output / "pretrained" / "crnn" for output in (expected, actual)], "loss")


def _training_difference(folders: list[Location], loss: str) -> str:
    """Compare what two trainings saved; `loss` is its name in the history of the card."""
    histories = [(folder / "model.json").read_json()["facts"]["history"] for folder in folders]
    losses = [np.array([epoch[loss] for epoch in history]) for history in histories]
    if losses[0].shape != losses[1].shape:
        return f"{len(losses[0])} epochs and {len(losses[1])}"
    weights = [checkpoint.load(folder, may_be_body=True)[1].network.state_dict() for folder in folders]
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


def _embeddings_difference(expected: Location, actual: Location) -> str:
    """Compare the tags and the tables of embeddings, which name their model."""
    if tags := tags_difference(expected, actual):
        return tags
    for name in (embedding_table.FILE, embedding_table.CLIPS_FILE):
        right, made = ((output / "embeddings" / name).read_table() for output in (expected, actual))
        if right.schema.metadata != made.schema.metadata:
            return f"{name}: other models"
        if rows := tag_row_difference(right, made):
            return f"{name}: {rows}"
    return ""
