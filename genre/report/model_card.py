"""The model card beside a saved model: what it is, what it can and cannot do, and how to use it, in Markdown.

Sections follow Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019, arXiv 1810.03993). Everything is filled
from the run; what is not known is left out or said to be unknown, never guessed.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from genre.evaluation.metrics import SCORES
from genre.model.calibration import Calibration
from genre.model.saved_model import ModelCard
from genre.report import CorpusFacts, Row, md
from genre.report.columns import count, score, seconds
from genre.report.table import Estimate
from genre.storage import Location

FILE = "MODEL_CARD.md"
WEAK = 0.5  # F1 below which a genre is named among the limits
FEW = 50  # training tracks, likewise
CONFUSIONS = 5


def write(folder: Location, text: str) -> None:
    """Put a card beside the model saved in `folder`."""
    (folder / FILE).write_text(text)


def card_markdown(
    card: ModelCard,
    corpus: CorpusFacts | None = None,
    row: Row | None = None,
    correction: Calibration | None = None,
    versions: Mapping[str, str] | None = None,
    commit: str = "",
    folder: str = "MODEL_FOLDER",
) -> str:
    """The card of a saved model.

    `corpus` is what it was trained on; `row` its own on a leaderboard of the same genres, once judged on test tracks;
    `correction` how `genre.Tagger` corrects its probabilities; `folder` where it lies, for the commands.
    """
    parts = [f"# {md.safe(card.label)}: {len(card.classes)} music genres", _what(card, row)]
    parts += ["## How to use it", *_usage(card, folder)]
    parts += ["## Scores", *_scores(card, row)]
    if row is not None:
        parts += ["## By genre", *_genres(card, row), *_robustness(row)]
    parts += ["## Probabilities", md.bullets(_probabilities(row, correction))]
    parts += ["## Training data", *_data(card, corpus)]
    parts += ["## Intended use and limits", md.bullets(_limits(card, corpus, row))]
    parts += ["## Settings", *_settings(card), "## Made with", md.bullets(_made_with(card, versions or {}, commit))]
    parts += ["## Licence", LICENCE]
    return "\n\n".join(part for part in parts if part) + "\n"


LICENCE = (
    "The code is under Apache-2.0. What the weights may be used for is for the person who trained them to say: it "
    "depends on the rights in the music they were trained on. Until a licence stands here, none is given."
)


def _what(card: ModelCard, row: Row | None) -> str:
    paper = (importlib.import_module(f"genre.architectures.{card.architecture}").__doc__ or "").strip().split("\n\n")[0]
    size = f" {count(row.entry.parameters)} parameters." if row and row.entry.parameters else ""
    takes = f"windows of {card.frames() * card.shape.frame_seconds:.1f} s of log-mel spectrograms"
    return (
        f"Names the genre of a piece of music: {md.safe(', '.join(card.classes))}. It hears {takes} "
        f"({card.shape.bins} bands) and averages its answers over the track.{size}\n\n"
        f"Architecture `{card.architecture}`: {md.safe(paper)}"
    )


def _usage(card: ModelCard, folder: str) -> Iterator[str]:
    if "audio" not in card.features:
        yield (
            "It was trained on spectrograms that were brought, so it takes features of the same kind and no audio: "
            "`python -m ray_jobs.evaluate` scores it on a features folder."
        )
        return
    yield "A folder of music from the command line, or a file from Python:"
    yield md.code([f"python -m ray_jobs.tag model={folder} inputs=MUSIC_FOLDER output=outputs/tags"])
    python = ["from genre import Tagger", "", f'tagger = Tagger.load("{folder}")', 'tags = tagger("song.mp3")']
    yield "\n".join(["```python", *python, "print(tags.genres[:3])", "```"])


def _scores(card: ModelCard, row: Row | None) -> Iterator[str]:
    facts = card.facts
    if "valid_f1" in facts:
        epoch = f" in epoch {facts['best_epoch']}" if "best_epoch" in facts else ""
        f1 = score(facts["valid_f1"])
        yield f"Macro F1 on the validation tracks, which chose the epoch and the settings: {f1}{epoch}."
    if row is None:
        yield "It has not been judged on test tracks."
        return
    tracks, runs = int(row.per_class.support.sum()), len(row.entry.runs)
    mean = f", mean over {runs} seeds of which this model is one" if runs > 1 else ""
    yield f"On {tracks} test tracks that decided nothing{mean}:"
    yield md.table(["Score", "Value", "95 % interval"], [_estimate(name, getattr(row, name)) for name in SCORES])
    if row.f1.std is not None:
        yield f"Macro F1 spreads over the seeds with a standard deviation of {row.f1.std:.3f}."


def _estimate(name: str, estimate: Estimate) -> list[str]:
    label = name if name == "accuracy" else f"macro {name.replace('f1', 'F1')}"
    return [label, score(estimate.mean), f"{score(estimate.low)}–{score(estimate.high)}"]


def _genres(card: ModelCard, row: Row) -> Iterator[str]:
    per = row.per_class
    columns = zip(card.classes, per.precision, per.recall, per.f1, per.support, strict=True)
    lines = [[genre, f"{p:.2f}", f"{r:.2f}", f"{f1:.2f}", str(n)] for genre, p, r, f1, n in columns]
    yield md.table(["Genre", "Precision", "Recall", "F1", "Test tracks"], lines)
    wrong = row.confusion * (1 - np.eye(len(card.classes)))
    pairs = [divmod(int(flat), len(card.classes)) for flat in np.argsort(-wrong, axis=None)[:CONFUSIONS]]
    said = [
        f"{card.classes[truth]} answered as {card.classes[answer]}: "
        f"{wrong[truth, answer]:.3g} of {per.support[truth]} tracks"
        for truth, answer in pairs
        if wrong[truth, answer]
    ]
    if said:
        yield "Most often confused:"
        yield md.bullets(said)


def _robustness(row: Row) -> Iterator[str]:
    if row.entry.robustness:
        yield "Macro F1 on the same test tracks, changed:"
        lines = [[change, score(f1)] for change, f1 in row.entry.robustness.items()]
        yield md.table(["Change", "Macro F1"], [["none", score(row.f1.mean)], *lines])


def _probabilities(row: Row | None, correction: Calibration | None) -> Iterator[str]:
    if row is not None:
        yield (
            f"Expected calibration error of the model's own probabilities on the test tracks: "
            f"{row.calibration_error:.3f} (0 is ideal)."
        )
    if correction is None or not correction.tracks:
        yield "They are not corrected: read them as an order, not as chances."
        return
    yield (
        f"Tagger corrects them with temperature {correction.temperature:.2f}, "
        f"fitted on {correction.tracks} validation tracks."
    )
    if 0 < correction.threshold <= 1:
        yield (
            f"Below a probability of {correction.threshold:.2f} it answers unknown: of the answers above it "
            f"{correction.precision:.0%} were right on validation tracks."
        )


def _data(card: ModelCard, corpus: CorpusFacts | None) -> Iterator[str]:
    if corpus is None:
        yield "Not recorded."
        return
    facts = {"Corpus": corpus.name, "Split": f"{corpus.split}: {corpus.split_rule}", "Leakage gate": corpus.leakage}
    yield md.bullets(f"{name}: {value}" for name, value in facts.items() if value)
    lines = [[genre, *(str(split.get(genre, 0)) for split in corpus.tracks.values())] for genre in card.classes]
    total = ["all", *(str(sum(split.values())) for split in corpus.tracks.values())]
    yield md.table(["Tracks", *corpus.tracks], [*lines, total])


def _limits(card: ModelCard, corpus: CorpusFacts | None, row: Row | None) -> Iterator[str]:
    yield "Meant for sorting and searching music collections, and for comparing models on the same tracks."
    yield "Not meant for decisions about people, their rights or their pay."
    yield f"It knows {len(card.classes)} genres: music of any other, speech and noise get one of them, or unknown."
    yield "Genres are conventions: where two people disagree the model cannot be right for both."
    train = corpus.tracks.get("train", {}) if corpus else {}
    if train:
        few = [f"{genre} ({train.get(genre, 0)})" for genre in card.classes if train.get(genre, 0) < FEW]
        yield f"It has heard {sum(train.values())} tracks of one corpus; on other recordings expect lower scores."
        if few:
            named = "every genre" if len(few) == len(card.classes) else ", ".join(few)
            yield f"Learned from fewer than {FEW} tracks: {named}."
    if row is not None:
        tested = zip(card.classes, row.per_class.f1, row.per_class.support, strict=True)
        weak = [f"{genre} ({f1:.2f})" for genre, f1, support in tested if support and f1 < WEAK]
        if weak:
            yield f"Weak, with F1 below {WEAK}: {', '.join(weak)}."


def _settings(card: ModelCard) -> Iterator[str]:
    settings = card.facts.get("settings", {})
    groups = {"Features": card.features, "Network": card.params, "Training": settings.get("train", {})}
    for name, values in groups.items():
        if values:
            yield f"{name}:"
            yield md.table(["Setting", "Value"], [[key, _shown(value)] for key, value in _flat(values)])


def _made_with(card: ModelCard, versions: Mapping[str, str], commit: str) -> Iterator[str]:
    facts = card.facts
    spent = seconds(facts["train_seconds"]) if "train_seconds" in facts else ""
    known = {"seed": facts.get("seed"), "training time": spent, "hardware": facts.get("hardware"), "commit": commit}
    known |= {"features fingerprint": card.fingerprint} | dict(versions)
    yield from (f"{name}: {value}" for name, value in known.items() if value not in (None, ""))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
