"""The board of a cross-validation: predictions for all labelled tracks, each by networks that never saw its group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.features import SPLITS, Features
from genre.features.splitting import folds
from genre.report import entries
from genre.report.board import Board, Entry, SeedRun
from genre.report.facts import CorpusFacts
from genre.wording import plural

_DRAWN = "cross-validation: groups and copies of a recording stay in one fold, genres are divided evenly"
_PUBLISHED = "cross-validation over published folds, which separate no group and no copies of a recording"


def board(features: Features, tracks: pa.Table, rows: list[Entry], classical: Entry, seed: int) -> Board:
    """Return the board of the networks `rows` and the `classical` baseline, with predictions in the order of `tracks`.

    `tracks` are the labelled tracks of `features` in their order, with the column `fold`, which counts from 1, and
    `published_fold` where the folds are published.
    """
    references = [entries.ensemble(rows, {})] if len(rows) > 1 else []
    references += [classical, _majority(features, tracks)]
    with_splits = entries.board(features, "all", [*rows, *references], seed, _notes(features, tracks), None)
    return replace(with_splits, corpus=_facts(features, tracks, with_splits.corpus))


def absent_genres(features: Features, tracks: pa.Table) -> list[str]:
    """Return a sentence on the published folds without a track of a genre, if any; `tracks` are those of `board`."""
    lacking = folds.absent_genres(tracks, features.classes, "published_fold") if _are_published(tracks) else ""
    if not lacking:
        return []
    return [
        f"Published {lacking}; scores are over the tracks of all folds. If that is wrong, correct the column 'fold'."
    ]


def _are_published(tracks: pa.Table) -> bool:
    return "published_fold" in tracks.column_names


def _majority(features: Features, tracks: pa.Table) -> Entry:
    """Return the entry that predicts for each track the class frequencies of the other folds."""
    fold, labels = tracks["fold"].to_numpy(), features.labels(tracks).to_numpy()
    classes = len(features.classes)
    counts = [np.bincount(labels[fold != number], minlength=classes) for number in range(fold.max() + 1)]
    frequencies = np.stack([count / count.sum() for count in counts]).astype(np.float32)  # no track is in fold 0
    return Entry(name="majority", kind="majority", runs=[SeedRun(0, frequencies[fold])])


def _facts(features: Features, tracks: pa.Table, corpus: CorpusFacts) -> CorpusFacts:
    """Return the facts of the corpus with the folds in place of the splits."""
    fold, labels = tracks["fold"].to_numpy(), features.labels(tracks).to_numpy()
    members = {f"fold {number}": fold == number for number in range(1, fold.max() + 1)}
    counts = {name: np.bincount(labels[mask], minlength=len(features.classes)) for name, mask in members.items()}
    groups = {name: pc.count_distinct(tracks["group"].filter(pa.array(mask))).as_py() for name, mask in members.items()}
    return replace(
        corpus,
        split=f"{len(members)}-fold",
        split_rule=_PUBLISHED if _are_published(tracks) else _DRAWN,
        tracks={name: dict(zip(features.classes, each.tolist(), strict=True)) for name, each in counts.items()},
        groups=groups if corpus.groups else {},
        leakage="passed: no track, group or known recording is in two folds",
    )


def _notes(features: Features, tracks: pa.Table) -> list[str]:
    """Return what was judged and how that differs from scores on the test split, in sentences."""
    counts = {split: len(features.tracks(split)) for split in SPLITS}
    parts = ", ".join(f"{split} {count}" for split, count in counts.items())
    published = _are_published(tracks)
    noun = "published fold" if published else "fold"
    notes = [
        f"Cross-validation over {plural(pc.max(tracks['fold']).as_py(), noun)}: each of the {len(tracks)} labelled "
        f"tracks ({parts}) was judged once, by networks that learned from the other folds with the settings, seed and "
        "number of epochs of the saved models, and so from no track of its group.",
        "Scores on the test split are those of the saved models, which learned from the training split, or after "
        "tune.folds from all tracks that are not test; these are those of the same way of training on the other folds. "
        "Validation scores, learning curves, training times and costs are those of the saved models.",
        "Settings and numbers of epochs were chosen by tracks that are judged as well, those of the validation split "
        "or after tune.folds all that are not test: the scores may be a little too high.",
        "The classical baseline learned for each fold from the others as well, with a penalty that was chosen in two "
        "halves of them, or is fixed where there are only two folds.",
        *absent_genres(features, tracks),
    ]
    if tracks["group"].null_count == len(tracks) and published:
        notes.append("Artists are unknown: whether the published folds separate them was not checked.")
    elif tracks["group"].null_count == len(tracks):
        notes.append(
            "Artists are unknown: tracks of one artist may be in several folds, which makes scores too high. A "
            "published split may separate artists where these folds do not."
        )
    return notes
