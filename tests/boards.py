"""Boards of made-up results for tests of the report."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np

from genre.report import Board, Compared, ComparedRow, CorpusFacts, Entry, Search, SeedRun, Trial
from genre.report.search import Status
from genre.retrieval.neighbours import Neighbours

GENRES = ["blues", "disco", "metal", "rock"]
TRUTH = np.repeat(np.arange(4), 25)
EVIL = "<script>alert('x')</script>"


def probabilities(skill: float, seed: int, classes: int = 4) -> np.ndarray:
    """Return probabilities, about a share `skill` of them correct. The same tracks are hard for every model."""
    hard = np.random.default_rng(0).random(len(TRUTH))
    rng = np.random.default_rng(seed + 1)
    wrong = (TRUTH + rng.integers(1, classes, len(TRUTH))) % classes
    chosen = np.where(hard + 0.4 * rng.random(len(TRUTH)) < skill + 0.2, TRUTH, wrong)
    table = rng.random((len(TRUTH), classes)) * 0.5
    table[np.arange(len(TRUTH)), chosen] += 1
    return np.asarray(table / table.sum(axis=1, keepdims=True), np.float32)


def network(name: str, skill: float, seeds: tuple[int, ...] = (0, 1), **facts: Any) -> Entry:
    history: list[dict[str, float | None]] = [
        {"epoch": e, "train_loss": 2 / e, "valid_loss": 2.1 / e, "valid_f1": 1 - 1 / e} for e in range(1, 6)
    ]
    runs = [SeedRun(seed, probabilities(skill, seed), 60.0 + seed, history, best_epoch=4) for seed in seeds]
    return Entry(name, "network", runs, {"train.learning_rate": 1.25e-06, "model.params.width": 32}, 8, skill, **facts)


def default(tuned: Entry, skill: float) -> Entry:
    """Return the row of a network with the configured settings."""
    name = f"{tuned.name} default"
    return replace(network(name, skill, tuple(run.seed for run in tuned.runs)), kind="default", default_of=tuned.name)


def majority() -> Entry:
    table = np.zeros((len(TRUTH), 4), dtype=np.float32)
    table[:, 0] = 1
    return Entry("majority", "majority", [SeedRun(0, table)])


def classical(skill: float) -> Entry:
    return Entry("mfcc_svm", "classical", [SeedRun(0, probabilities(skill, 9), 1.5)])


def neighbours(skill: float = 0.6, of: str = "resnet") -> Entry:
    """Return the row of the nearest training tracks, three of each track; the first has the genre of the answer."""
    table = probabilities(skill, 5)
    genres = np.stack([table.argmax(axis=1), TRUTH, (TRUTH + 1) % 4], axis=1)
    names = np.array(
        [[f"{GENRES[g]}/train {n}-{i}.wav" for i, g in enumerate(row)] for n, row in enumerate(genres)], object
    )
    cosines = np.tile(np.array([0.9, 0.8, 0.75], np.float32), (len(TRUTH), 1))
    run = SeedRun(1, table, neighbours=Neighbours(names, genres, cosines))
    return Entry(f"nearest neighbours of {of}", "neighbours", [run], {"neighbours.voters": 10})


def board(*entries: Entry, **changes: Any) -> Board:
    facts = CorpusFacts(
        "synthetic",
        "random",
        "By artist, stratified by genre.",
        tracks={"train": dict.fromkeys(GENRES, 60), "test": dict.fromkeys(GENRES, 25)},
        groups={"train": 20, "test": 8},
        rejects={"truncated": 2, "silent": 1},
    )
    parts: dict[str, Any] = {
        "title": "Test board",
        "classes": GENRES,
        "track_ids": [f"{GENRES[t]}/{i:03d}.wav" for i, t in enumerate(TRUTH)],
        "truth": TRUTH,
        "entries": list(entries),
        "corpus": facts,
        "created": "2025-01-02T03:04:05+00:00",
        "hardware": "2 CPU cores",
        "commands": ["python -m ray_jobs.tune --config configs/demo.yaml"],
        "versions": {"torch": "2.11.0"},
        "notes": ["A note."],
        "commit": "0123abc",
    }
    return Board(**parts | changes)


def full() -> Board:
    """Return a board with three networks, two of them equally good, and the reference rows."""
    return board(
        network("resnet", 0.8, parameters=11_000_000, clips_per_second=50.0, latency_ms=21.0),
        network("cnn", 0.78, parameters=400_000, clips_per_second=400.0),
        network("vgg16", 0.4, parameters=14_000_000, clips_per_second=20.0),
        classical(0.3),
        majority(),
    )


def large(tracks: int, classes: int = 16) -> Board:
    """Return a board of six networks with three seeds and 30 epochs each, their ensemble and the reference rows."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, classes, tracks)
    hard = rng.random(tracks)

    def answers(skill: float) -> np.ndarray:
        right = hard + 0.4 * rng.random(tracks) < skill + 0.2
        table = rng.random((tracks, classes), dtype=np.float32) / 2
        table[np.arange(tracks), np.where(right, truth, rng.integers(0, classes, tracks))] += 1
        return np.asarray(table / table.sum(axis=1, keepdims=True))

    history: list[dict[str, float | None]] = [
        {"epoch": e, "train_loss": 2 / e, "valid_loss": 2.1 / e, "valid_accuracy": 0.5, "valid_f1": 1 - 1 / e}
        for e in range(1, 31)
    ]
    entries = [
        Entry(f"network{n}", "network", [SeedRun(seed, answers(0.4 + n / 20), 60.0, history, 9) for seed in range(3)])
        for n in range(6)
    ]
    entries.append(Entry("ensemble", "ensemble", [SeedRun(seed, answers(0.8)) for seed in range(3)]))
    entries.append(Entry("statistics + svm", "classical", [SeedRun(0, answers(0.3))]))
    entries.append(Entry("majority", "majority", [SeedRun(0, np.full((tracks, classes), 1 / classes, np.float32))]))
    names = [f"genre{number}" for number in range(classes)]
    return board(
        *entries,
        classes=names,
        truth=truth,
        track_ids=[f"music/{n // 1000:05d}/{n:08d}.mp3" for n in range(tracks)],
        groups=[f"artist {n // 5}" for n in range(tracks)],
        corpus=CorpusFacts("folder music", "random", "By artist.", {"test": dict.fromkeys(names, tracks // classes)}),
    )


def search(architectures: tuple[str, ...] = ("resnet", "cnn"), trials: int = 8) -> Search:
    """Return a search with trials of every status: the first is chosen, the second configured, the last has none."""
    statuses: tuple[Status, ...] = ("finished", "stopped", "failed", "interrupted")
    made = [
        Trial(
            architecture=name,
            settings={
                "train.learning_rate": 10.0 ** -(1 + i / 2),
                "train.mixup": [0.0, 0.3][i % 2],
                "params.head": "gru",
            },
            status=statuses[i % 4] if i < trials - 1 else "failed",
            valid_f1=0.7 - 0.05 * i if i < trials - 1 else None,
            epochs=20 - i,
            seconds=30.0,
            error="the loss is nan" if i % 4 == 2 or i == trials - 1 else "",
            is_configured=i == 1,
            is_chosen=i == 0,
        )
        for name in architectures
        for i in range(trials)
    ]
    return Search(made, makespan_seconds=300.0, concurrent=2, budget="8 trials of 20 epochs for each architecture")


def everything() -> Board:
    """Return a board with every optional part."""
    robust = {"unchanged": 0.78, "noise 20 dB": 0.6, "-12 dB": 0.75}
    first = full()
    entries = [network("resnet", 0.8, parameters=11_000_000, robustness=robust), *first.entries[1:], neighbours()]
    rows = [ComparedRow("resnet", "network", 0.9, 0.85, 0.95, 0.9), ComparedRow("crnn", "network", 0.7, 0.6, 0.8, 0.7)]
    return board(*entries, search=search(), compared=[Compared("random", "synthetic", "shuffled", 120, rows)])


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, key: str) -> list[Any]:
        """Return the values of a column, from top to bottom."""
        return [attributes["data-value"] for _, attributes in self.tags if attributes.get("data-key") == key]

    def all(self, name: str) -> list[dict[str, Any]]:
        """Return the attributes of every tag with this name."""
        return [attributes for tag, attributes in self.tags if tag == name]
