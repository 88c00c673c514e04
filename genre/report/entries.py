"""Entries of a leaderboard from the predictions of saved models and baselines, and the facts about the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np
import pyarrow.compute as pc

from genre.arrays import Float32
from genre.evaluation.baseline import Baseline
from genre.evaluation.ensemble import mean_by_seed
from genre.evaluation.inference import InferenceCost
from genre.features import SPLITS, Features, versions
from genre.features.splitting import balance
from genre.model import calibration, provenance
from genre.model.saved_model import SavedModel
from genre.report.board import Board, Entry, SeedRun, describe_hardware
from genre.report.facts import CorpusFacts, Judged, Setting
from genre.report.formats import flat, without_folders
from genre.report.search import Search
from genre.retrieval.neighbours import Neighbours
from genre.settings import DEFAULT_PRECISION

Robustness = dict[str, float]
N = TypeVar("N", int, float)
_SPLIT_RULES = {
    "official": "published by the corpus",
    "random": "drawn so that each genre has its share; groups and copies of a recording stay in one split",
}


@dataclass(frozen=True)
class SavedRuns:
    """A row's models, one per seed, and the number of trials that the search spent on it.

    For a row with the configured settings, `default_of` names the row of the same network with the tuned settings; it
    is empty for a candidate.
    """

    name: str
    models: Sequence[SavedModel]
    trials: int | None = None
    default_of: str = ""

    @property
    def best(self) -> SavedModel:
        """The model with the best validation score, of equal ones the first."""
        return max(self.models, key=lambda model: float(model.card.facts["valid_f1"]))


@dataclass(frozen=True)
class NearestTracks:
    """The votes of the nearest training tracks by the embeddings of one model: that of row `name` with `seed`."""

    name: str
    seed: int
    probabilities: Float32  # (tracks, classes)
    neighbours: Neighbours
    settings: dict[str, Setting]


def network(saved: SavedRuns, predictions: Sequence[Float32], cost: InferenceCost, robustness: Robustness) -> Entry:
    """Return the entry of an architecture, from the predictions of its models (one per seed) and the cost of one."""
    cards = [model.card for model in saved.models]
    memory = [mb for card in cards if (mb := card.facts.get("memory_mb"))]
    return Entry(
        name=saved.name,
        kind="default" if saved.default_of else "network",
        runs=[_run(model, each) for model, each in zip(saved.models, predictions, strict=True)],
        settings=flat(cards[0].facts["settings"]),
        trials=saved.trials,
        valid_f1=float(np.mean([card.facts["valid_f1"] for card in cards])),
        parameters=cost.parameters,
        flops=cost.flops,
        clips_per_second=cost.clips_per_second,
        latency_ms=cost.latency_ms,
        hardware=cost.hardware,
        memory_mb=max(memory) if memory else None,
        robustness=robustness,
        default_of=saved.default_of,
    )


def ensemble(entries: list[Entry], robustness: Robustness) -> Entry:
    """Return the entry of the networks' mean probabilities, seed by seed; its cost is the sum of theirs."""
    means = mean_by_seed({entry.name: [(run.seed, run.probabilities) for run in entry.runs] for entry in entries})
    runs = [SeedRun(seed, probabilities) for seed, probabilities in means]
    seconds_per_clip = _sum([1 / speed if (speed := entry.clips_per_second) else None for entry in entries])
    return Entry(
        name="ensemble",
        kind="ensemble",
        runs=runs,
        parameters=_sum([entry.parameters for entry in entries]),
        flops=_sum([entry.flops for entry in entries]),
        clips_per_second=1 / seconds_per_clip if seconds_per_clip else None,
        latency_ms=_sum([entry.latency_ms for entry in entries]),
        hardware="; ".join(dict.fromkeys(entry.hardware for entry in entries if entry.hardware)),
        robustness=robustness,
    )


def classical(fitted: Baseline, probabilities: Float32, robustness: Robustness) -> Entry:
    """Return the entry of the classical baseline, from its predictions."""
    return Entry(
        name=fitted.name,
        kind="classical",
        runs=[SeedRun(0, probabilities, train_seconds=fitted.train_seconds)],
        settings=fitted.settings,
        valid_f1=fitted.valid_f1,
        robustness=robustness,
    )


def classical_of_folds(
    name: str, settings: Sequence[dict[str, Setting]], probabilities: Float32, seconds: float
) -> Entry:
    """Return the entry of the baselines of a cross-validation, from the settings of each and their predictions.

    A setting that differs has the values of all folds. `seconds` is the mean time of a training.
    """
    values = {key: [each.get(key) for each in settings] for key in settings[0]}
    shown = {key: each[0] if len(set(each)) == 1 else [str(value) for value in each] for key, each in values.items()}
    return Entry(name, "classical", [SeedRun(0, probabilities, train_seconds=seconds)], shown)


def neighbours(nearest: NearestTracks) -> Entry:
    """Return the entry of the votes of the nearest training tracks."""
    run = SeedRun(nearest.seed, nearest.probabilities, neighbours=nearest.neighbours)
    return Entry(f"nearest neighbours of {nearest.name}", "neighbours", [run], nearest.settings)


def majority(features: Features, judged_on: Judged, saved: Sequence[SavedRuns]) -> Entry:
    """Return the entry that predicts the class frequencies of the models' training tracks for every track.

    If the models learned from different sets of tracks of `features`, the largest set counts. With `judged_on` valid it
    is always the training split: a model that is judged by validation tracks did not learn from them.
    """
    cards = [model.card for runs in saved for model in runs.models]
    views = [features if judged_on == "valid" else provenance.learned_from(card, features) for card in cards]
    learned = max(views, key=lambda view: len(view.tracks("train")))
    counts = _class_counts(learned, "train")
    shares = np.array(list(counts.values()), np.float32) / max(1, len(learned.tracks("train")))
    return Entry("majority", "majority", [SeedRun(0, np.tile(shares, (len(features.tracks(judged_on)), 1)))])


def corpus_facts(features: Features) -> CorpusFacts:
    """Return where the features came from and how their tracks were split."""
    manifest = features.manifest
    return CorpusFacts(
        name=f"{manifest.corpus.get('kind', 'features')} {without_folders(manifest.corpus.get('root', ''))}".strip(),
        split=manifest.split,
        split_rule=_SPLIT_RULES.get(manifest.split, "given with the features"),
        tracks={split: _class_counts(features, split) for split in SPLITS},
        groups=_group_counts(features),
        rejects=manifest.counts.reasons,
        leakage="passed: no track, group or known recording is in two splits",
    )


def unknown_artists(features: Features) -> list[str]:
    """Return a note on what the split does not rule out, where no track has a group."""
    tracks = features.tracks()
    if tracks["group"].null_count < len(tracks):
        return []
    if features.manifest.split == "random":
        return ["Artists are unknown: tracks of one artist may be in several splits, which makes scores too high."]
    return ["Artists are unknown: whether the given split separates them was not checked."]


def absent_genres(features: Features, judged_on: Judged) -> list[str]:
    """Return a note on the genres without a track in the split that is judged."""
    note = balance.absent_genres(features.tracks(), features.classes, judged_on, judges=True)
    return [note] if note else []


def board(
    features: Features,
    judged_on: Judged,
    entries: list[Entry],
    seed: int,
    notes: list[str],
    search: Search | None,
) -> Board:
    """Return the board of `entries`, whose predictions are those for the tracks of `judged_on` in their order."""
    tracks = features.labelled() if judged_on == "all" else features.tracks(judged_on)
    groups = pc.coalesce(tracks["group"], tracks["track_id"])  # the track itself where no group is known
    has_groups = pc.count_distinct(groups).as_py() < len(tracks)
    corpus = corpus_facts(features)
    return Board(
        title=f"Music genres: {corpus.name}",
        classes=features.classes,
        track_ids=tracks["track_id"].to_pylist(),
        truth=features.labels(tracks).to_numpy(),
        groups=groups.to_pylist() if has_groups else None,
        entries=entries,
        corpus=corpus,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        judged_on=judged_on,
        seed=seed,
        hardware=describe_hardware(entries),
        versions=versions.packages(),
        commit=versions.commit(),
        notes=notes,
        search=search,
    )


def _sum(values: Sequence[N | None]) -> N | None:
    """Return the sum, or None when a value is unknown."""
    known = [value for value in values if value is not None]
    return sum(known[1:], start=known[0]) if known and len(known) == len(values) else None


def _run(model: SavedModel, probabilities: Float32) -> SeedRun:
    keys, facts = ("epoch", "train_loss", "valid_loss", "valid_accuracy", "valid_f1"), model.card.facts
    return SeedRun(
        seed=facts["seed"],
        probabilities=probabilities,
        train_seconds=facts["train_seconds"],
        hardware=facts.get("hardware", ""),
        history=[{key: epoch[key] for key in keys} for epoch in facts["history"]],
        best_epoch=facts["best_epoch"],
        correction=calibration.fit([model.read_validation()], DEFAULT_PRECISION),
    )


def _class_counts(features: Features, split: str) -> dict[str, int]:
    """Return the number of tracks of each class in a split."""
    counts = {row["values"]: row["counts"] for row in pc.value_counts(features.tracks(split)["genre"]).to_pylist()}
    return {name: counts.get(name, 0) for name in features.classes}


def _group_counts(features: Features) -> dict[str, int]:
    """Return the number of groups in each split, or {} for a corpus without groups."""
    tracks = features.tracks()
    if tracks["group"].null_count == len(tracks):
        return {}
    return {split: pc.count_distinct(features.tracks(split)["group"]).as_py() for split in SPLITS}
