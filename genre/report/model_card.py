"""The model card: what a saved model is, how well it works, its limits and how to use it, in Markdown.

Sections follow Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019, arXiv 1810.03993). The front matter is
that of the Hugging Face Hub (https://huggingface.co/docs/hub/model-cards), without a licence, which the person who
trained the model has to choose. Unknown facts are left out or called unknown, and no folder of this machine is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import yaml

from genre import registry
from genre.evaluation.metrics import SCORES
from genre.evaluation.robustness import UNCHANGED
from genre.model import thresholds
from genre.model.calibration import Calibration
from genre.model.card import ModelCard
from genre.model.saved_model import SavedModel
from genre.report.board import Board
from genre.report.facts import CorpusFacts
from genre.report.formats import count, flat, score, seconds, without_folders
from genre.report.markdown import Lines, track_counts
from genre.report.rendering import markdown_text
from genre.report.table import Row
from genre.storage import Location
from genre.wording import plural

FILE = "MODEL_CARD.md"
WEAK = 0.5  # F1 below which a genre is named among the limits
FEW = 50  # training tracks below which a genre is named among the limits
CONFUSIONS = 5  # pairs of genres listed


def write(folder: Location, text: str) -> None:
    """Write the text of a model card into the folder of its model."""
    (folder / FILE).write_text(text)


def write_scored(model: SavedModel, board: Board, row: Row) -> None:
    """Write the card of a saved model, with the scores of its row where the board is of test tracks."""
    run = next(run for run in row.entry.runs if run.seed == model.card.facts["seed"])
    correction = run.correction.without_thresholds() if run.correction else None
    scores = row if board.judged_on == "test" else None  # scores on tracks that took part in training mislead
    write(model.location, markdown(model.card, board.corpus, scores, correction, board.versions, board.commit))


def markdown(
    card: ModelCard,
    corpus: CorpusFacts | None = None,
    row: Row | None = None,
    correction: Calibration | None = None,
    versions: Mapping[str, str] | None = None,
    commit: str = "",
) -> str:
    """Return the model card of a saved model.

    `corpus` describes the training data, `row` the model's scores on test tracks (of the same genres), `correction`
    how `genre.Tagger` corrects its probabilities, and `versions` the libraries that trained it.
    """
    docstring = registry.load("genre.architectures", card.architecture).__doc__ or ""
    text = markdown_text(
        "model_card",
        {
            "card": card,
            "row": row,
            "corpus": corpus,
            "corpus_name": corpus.name if corpus else "",
            "correction": correction,
            "threshold_text": thresholds.describe(correction.thresholds) if correction else "",
            "description": docstring.strip().split("\n\n")[0],
            "window_seconds": card.frames() * card.shape.frame_seconds,
            "parameters": count(row.entry.parameters) if row and row.entry.parameters else "",
            "takes_audio": "audio" in card.features,
            "scores": _scores(row) if row else [],
            "genres": _genres(card, row) if row else [],
            "robustness": _robustness(row) if row else [],
            "confusions": list(_confusions(card, row)) if row else [],
            "tracks": track_counts(corpus, card.classes) if corpus else [],
            "limits": list(_limits(card, corpus, row)),
            "settings": _settings(card),
            "training": _training(card, versions or {}, commit),
            "score": score,
            "plural": plural,
        },
    )
    return f"---\n{_front_matter(card, corpus, row)}---\n\n{text}"


def _front_matter(card: ModelCard, corpus: CorpusFacts | None, row: Row | None) -> str:
    """Return the metadata that the Hugging Face Hub reads, as YAML."""
    metadata: dict[str, Any] = {
        "library_name": "genre",
        "pipeline_tag": "audio-classification",
        "tags": ["audio-classification", "music", "music-genre-classification", card.architecture],
        "metrics": ["f1", "accuracy"],
    }
    valid_f1 = card.facts.get("valid_f1")
    split, metrics = "test", {}
    if row is not None:
        metrics = {("f1", "Macro F1"): row.f1.mean, ("accuracy", "Accuracy"): row.accuracy.mean}
    elif valid_f1 is not None:
        split = "validation" if len(card.trained_on) == 1 else "cross-validation"
        metrics = {("f1", "Macro F1"): valid_f1}
    if metrics:
        dataset = re.sub(r"[^\w .,:()+-]", "", corpus.name if corpus else "") or "unknown"
        result = {
            "task": {"type": "audio-classification", "name": "Music genre classification"},
            "dataset": {"type": dataset.split()[0], "name": dataset, "split": split},
            "metrics": [
                {"type": kind, "name": name, "value": round(float(value), 4)} for (kind, name), value in metrics.items()
            ],
        }
        metadata["model-index"] = [{"name": card.name, "results": [result]}]
    return yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)


def _scores(row: Row) -> Lines:
    names = {name: name if name == "accuracy" else f"macro {name.replace('f1', 'F1')}" for name in SCORES}
    estimates = {name: getattr(row, name) for name in SCORES}
    lines = [[names[name], score(e.mean), f"{score(e.low)}–{score(e.high)}"] for name, e in estimates.items()]
    return [["Score", "Value", "95 % interval"], *lines]


def _genres(card: ModelCard, row: Row) -> Lines:
    by_class = row.per_class
    columns = zip(card.classes, by_class.precision, by_class.recall, by_class.f1, by_class.support, strict=True)
    lines = [[genre, f"{p:.2f}", f"{r:.2f}", f"{f1:.2f}", str(n)] for genre, p, r, f1, n in columns]
    return [["Genre", "Precision", "Recall", "F1", "Test tracks"], *lines]


def _robustness(row: Row) -> Lines:
    """Return macro F1 by change of the audio, or nothing when it was not measured."""
    unchanged = row.entry.robustness.get(UNCHANGED)
    if unchanged is None:
        return []
    lines = [[change, score(f1)] for change, f1 in row.entry.robustness.items() if change != UNCHANGED]
    return [["Change", "Macro F1"], ["none", score(unchanged)], *lines]


def _confusions(card: ModelCard, row: Row) -> Iterator[str]:
    """Yield the most frequent confusions, each as a sentence."""
    wrong = row.confusion * (1 - np.eye(len(card.classes)))
    for pair in np.argsort(-wrong, axis=None)[:CONFUSIONS]:
        truth, answer = divmod(int(pair), len(card.classes))
        if wrong[truth, answer]:
            tracks = plural(int(row.per_class.support[truth]), "track")
            yield f"{card.classes[truth]} classified as {card.classes[answer]}: {wrong[truth, answer]:.3g} of {tracks}"


def _limits(card: ModelCard, corpus: CorpusFacts | None, row: Row | None) -> Iterator[str]:
    yield "For sorting and searching music collections, and for comparing models on the same tracks."
    yield "Not for decisions about people, their rights or their pay."
    yield (
        f"It knows {plural(len(card.classes), 'genre')}. Music of other genres, speech and noise are assigned to one "
        "of them, or to unknown."
    )
    yield "Genres are conventions: where listeners disagree, no model can satisfy all of them."
    by_split = [corpus.tracks.get(split, {}) for split in card.trained_on] if corpus else []
    learned = {genre: sum(counts.get(genre, 0) for counts in by_split) for genre in card.classes}
    if any(by_split):
        few = [f"{genre} ({number})" for genre, number in learned.items() if number < FEW]
        share = "a part of the " if "fold" in card.facts else ""
        total = plural(sum(learned.values()), "track")
        yield f"It was trained on {share}{total} of one corpus; expect lower scores on others."
        if card.facts.get("settings", {}).get("train", {}).get("init_from"):
            yield "It started from the weights of another training, and so learned from the tracks of that one as well."
        if card.teacher:
            yield "It also learned from tracks without a genre, for which another model predicted one."
        if few:
            names = "every genre" if len(few) == len(card.classes) else ", ".join(few)
            yield f"Trained on fewer than {FEW} tracks: {names}."
    if row is not None:
        scored = zip(card.classes, row.per_class.f1, row.per_class.support, strict=True)
        weak = [f"{genre} ({f1:.2f})" for genre, f1, support in scored if support and f1 < WEAK]
        if weak:
            yield f"F1 below {WEAK}: {', '.join(weak)}."


def _settings(card: ModelCard) -> dict[str, Lines]:
    """Return a table of settings for each group that has some."""
    train = card.facts.get("settings", {}).get("train", {})
    groups = {"Features": card.features, "Network": card.params, "Training": train}
    return {
        name: [["Setting", "Value"], *([key, _value_text(value)] for key, value in flat(values).items())]
        for name, values in groups.items()
        if values
    }


def _training(card: ModelCard, versions: Mapping[str, str], commit: str) -> dict[str, object]:
    """Return the known facts about the training."""
    facts = card.facts
    duration = seconds(facts["train_seconds"]) if "train_seconds" in facts else ""
    known = {"seed": facts.get("seed"), "training time": duration, "hardware": facts.get("hardware"), "commit": commit}
    known |= {"features fingerprint": card.fingerprint} | dict(versions)
    return {name: value for name, value in known.items() if value not in (None, "")}


def _value_text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else without_folders(str(value))
