"""From saved models to the leaderboard: score each once on a split, beside the rows that give a score its meaning."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from genre import baseline, checkpoint, experiment, features, ledger, report
from genre.baseline import Baseline
from genre.checkpoint import ModelCard
from genre.config import Config
from genre.experiment import Data, Scored
from genre.features import Clips
from genre.report import Board, CorpusFacts, Entry, Run
from genre.storage import Location
from ray_jobs import cli

import ray  # isort: skip

SPLIT_RULES = {
    True: "published by the corpus",
    False: "drawn by genre and group from corpus.split_seed; whole groups, and equal audio, stay together",
}


@dataclass(frozen=True)
class Saved:
    """Where the models of one architecture lie, one per seed, and what the search spent on it."""

    architecture: str
    folders: Sequence[Location]
    trials: int | None = None


@ray.remote(num_cpus=1)
def fit_baseline(data: Data) -> Baseline:
    """Fit the classical baseline as a task beside the search."""
    return baseline.fit(data.train, data.valid, len(data.classes))


@ray.remote(num_cpus=1)
def score_model(folder: Location, clips: Clips) -> tuple[ModelCard, Scored]:
    """Score one saved model with one CPU, so that costs compare."""
    torch.set_num_threads(1)
    card, _ = checkpoint.load(folder)
    return card, experiment.score(folder, clips)


def judge(config: Config, folder: Location, split: str, saved: list[Saved], fitted: Baseline | None) -> Board:
    """Score every saved model once on `split` of the features in `folder`."""
    manifest = features.read_manifest(folder)
    clips = features.load(folder, split)
    shared = ray.put(clips)
    scored = [[score_model.remote(place, shared) for place in one.folders] for one in saved]
    entries = [_entry(one, ray.get(refs)) for one, refs in zip(saved, scored, strict=True)]
    if len(entries) > 1:
        entries.append(_ensemble(entries))
    if fitted is not None:
        entries.append(_baseline_entry(fitted, clips))
    tracks = features.read_tracks(folder)
    entries.append(_majority_entry(tracks, manifest["classes"], clips))
    return Board(
        title=f"Music genres of {config.corpus.kind}",
        classes=list(manifest["classes"]),
        track_ids=clips.track_ids.tolist(),
        truth=clips.labels,
        groups=clips.groups.tolist() if len(np.unique(clips.groups)) < len(clips.track_ids) else None,
        entries=entries,
        corpus=_corpus_facts(manifest, tracks),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=config.seed,
        hardware=experiment.hardware(),
        commands=[f"python -m {_job()} {' '.join(sys.argv[1:])}".strip()],
        versions=ledger.versions(),
    )


def publish(board: Board, folder: Location) -> None:
    """Write the report's files and show its table."""
    table = report.write(board, folder)
    print(report.text_table(table))
    cli.console().print(f"report: {folder / 'leaderboard.html'}")


def _entry(saved: Saved, results: list[tuple[ModelCard, Scored]]) -> Entry:
    cards, scores = [card for card, _ in results], [score for _, score in results]
    facts = cards[0].facts
    return Entry(
        name=saved.architecture,
        kind="network",
        runs=[_run(card, score) for card, score in results],
        settings=_flat(facts["settings"]),
        trials=saved.trials,
        valid_f1=float(np.mean([card.facts["valid_f1"] for card in cards])),
        parameters=scores[0].parameters,
        flops=scores[0].flops,
        clips_per_second=float(np.median([score.clips_per_second for score in scores])),
        latency_ms=float(np.median([score.latency_ms for score in scores])),
    )


def _run(card: ModelCard, scored: Scored) -> Run:
    keys = ("epoch", "train_loss", "valid_loss", "valid_accuracy", "valid_f1")
    return Run(
        seed=card.facts["seed"],
        probabilities=scored.probabilities,
        train_seconds=card.facts["train_seconds"],
        history=[{key: epoch[key] for key in keys} for epoch in card.facts["history"]],
        best_epoch=card.facts["best_epoch"],
    )


def _ensemble(entries: list[Entry]) -> Entry:
    """The mean of all networks' probabilities, seed by seed."""
    seeds = min(len(entry.runs) for entry in entries)
    runs = []
    for i in range(seeds):
        mean = np.mean([entry.runs[i].probabilities for entry in entries], axis=0)
        runs.append(Run(entries[0].runs[i].seed, mean.astype(np.float32)))
    parameters = sum(entry.parameters or 0 for entry in entries)
    return Entry(name="ensemble", kind="ensemble", runs=runs, parameters=parameters)


def _baseline_entry(fitted: Baseline, clips: Clips) -> Entry:
    return Entry(
        name="mfcc + svm",
        kind="classical",
        runs=[Run(0, fitted.predict(clips), train_seconds=fitted.train_seconds)],
        settings={"svc.C": fitted.penalty, "mfccs": baseline.MFCCS},
        valid_f1=fitted.valid_f1,
    )


def _majority_entry(tracks: Any, classes: list[str], clips: Clips) -> Entry:
    """Answers every track with the training split's class frequencies."""
    training = [
        g for g, s in zip(tracks["genre"].to_pylist(), tracks["split"].to_pylist(), strict=True) if s == "train"
    ]
    shares = np.array([training.count(name) for name in classes], np.float32) / max(1, len(training))
    return Entry(name="majority", kind="majority", runs=[Run(0, np.tile(shares, (len(clips.track_ids), 1)))])


def _corpus_facts(manifest: dict[str, Any], tracks: Any) -> CorpusFacts:
    corpus, counts = manifest["corpus"], manifest["counts"]
    by_split = {split: {genre: row[split] for genre, row in counts["splits"].items()} for split in features.SPLITS}
    groups = {
        split: len(
            {
                g
                for g, s in zip(tracks["group"].to_pylist(), tracks["split"].to_pylist(), strict=True)
                if s == split and g
            }
        )
        for split in features.SPLITS
    }
    return CorpusFacts(
        name=f"{corpus['kind']} {corpus['root']}".strip(),
        split=corpus["split"],
        split_rule=SPLIT_RULES[corpus["split"] != "random"],
        tracks=by_split,
        groups=groups if any(groups.values()) else {},
        rejects=counts["reasons"],
        leakage="passed: no track, group or equal audio is in two splits",
    )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _job() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else "ray_jobs.tune"
