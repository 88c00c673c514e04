from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import boards
import pytest
import yaml

from genre.features import Shape
from genre.model.calibration import Calibration
from genre.model.card import ModelCard
from genre.report import CorpusFacts, Row, model_card, tabulate
from genre.storage import Location


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(
        architecture="cnn",
        params={"width": 16},
        classes=boards.GENRES,
        features={"audio": {"sample_rate": 22050}, "spectrogram": {"n_mels": 64}},
        fingerprint="0123456789abcdef",
        shape=Shape(64, 345, 80.0, 512 / 22050),
        window_seconds=3.0,
        eval_windows=8,
        facts={
            "seed": 1,
            "valid_f1": 0.71234,
            "best_epoch": 4,
            "train_seconds": 61.0,
            "settings": {"train": {"learning_rate": 0.00123456789}},
        },
    )


@pytest.fixture
def row() -> Row:
    return next(row for row in tabulate(boards.everything()).rows if row.entry.name == "resnet")


def test_the_card_of_an_evaluated_model_has_its_scores_data_and_limits(card: ModelCard, row: Row) -> None:
    text = model_card.markdown(
        card,
        boards.board().corpus,
        row,
        Calibration(temperature=1.25, thresholds=(0.6, 0.6, 0.7), precision=0.8, tracks=40),
        {"torch": "2.11.0"},
        commit="0123abc",
    )
    assert re.search(rf"macro F1 +\| {row.f1.mean:.3f} \| {row.f1.low:.3f}–{row.f1.high:.3f}", text)
    assert "100 test tracks that had no influence on the model, mean over 2 seeds" in text
    assert "0.712 in epoch 4" in text
    assert "rained on fewer than 50 tracks" not in text
    assert "240 tracks of one corpus" in text
    assert "1.25, fitted on 40 validation tracks" in text
    assert "Below a probability of 0.60" in text
    assert "noise 20 dB" in text
    assert "genre tag inputs=MUSIC_FOLDER model=cnn" in text
    assert "from genre import Tagger" in text
    assert re.search(r"learning_rate \| 0\.00123457", text)
    assert "training time: 1 min 01 s" in text
    assert "commit: 0123abc" in text
    assert "Short-chunk CNN" in text
    worst = re.search(r"(\w+) classified as (\w+): (\d+)", text)
    assert worst
    assert worst[1] != worst[2]


def front_matter(text: str) -> dict[str, Any]:
    metadata: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return metadata


def test_the_front_matter_is_that_of_the_hugging_face_hub(card: ModelCard, row: Row) -> None:
    metadata = front_matter(model_card.markdown(card, boards.board().corpus, row))
    assert metadata["pipeline_tag"] == "audio-classification"
    assert "cnn" in metadata["tags"]
    assert "license" not in metadata
    (model,) = metadata["model-index"]
    (result,) = model["results"]
    assert result["dataset"] == {"type": "synthetic", "name": "synthetic", "split": "test"}
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        "f1": pytest.approx(row.f1.mean, abs=1e-4),
        "accuracy": pytest.approx(row.accuracy.mean, abs=1e-4),
    }
    (validated,) = front_matter(model_card.markdown(card))["model-index"][0]["results"]
    assert validated["dataset"]["split"] == "validation"
    assert validated["metrics"][0]["value"] == 0.7123
    assert "model-index" not in front_matter(model_card.markdown(dataclasses.replace(card, facts={})))


def test_no_folder_of_the_machine_is_named(card: ModelCard) -> None:
    moved = dataclasses.replace(card, params={"pretrained": "/home/me/models/cnn"})
    text = model_card.markdown(moved, boards.board().corpus)
    assert "/home" not in text
    assert re.search(r"\| pretrained \| cnn", text)


def test_the_card_of_a_model_without_test_scores_says_so(card: ModelCard) -> None:
    text = model_card.markdown(card)
    assert "It has not been evaluated on test tracks." in text
    assert "Not recorded." in text
    assert "They are not calibrated" in text
    assert "Scores by genre" not in text
    assert "\n\n# cnn: 4 music genres\n" in model_card.markdown(dataclasses.replace(card, facts={}))


def test_the_card_of_a_model_after_folds_claims_no_validation(card: ModelCard) -> None:
    facts = card.facts | {"trained_on": ["train", "valid"], "folds": 5}
    folded = dataclasses.replace(card, facts=facts)
    corpus = dataclasses.replace(
        boards.board().corpus, tracks={part: dict.fromkeys(card.classes, 20) for part in ("train", "valid", "test")}
    )
    text = model_card.markdown(folded, corpus)
    assert "epochs, 4, and the settings were chosen: 0.712, the mean over 5 folds of these tracks" in text
    assert "validation tracks" not in text
    assert f"trained on {40 * len(card.classes)} tracks" in text
    assert "Trained on fewer than 50 tracks: every genre" in text
    assert front_matter(text)["model-index"][0]["results"][0]["dataset"]["split"] == "cross-validation"
    unfinished = model_card.markdown(dataclasses.replace(card, facts=facts | {"folds": 0}))
    assert "that of the first fold of these tracks" in unfinished
    first = model_card.markdown(dataclasses.replace(card, facts=facts | {"fold": "fold 1 of 5"}), corpus)
    assert "without those of fold 1 of 5. Macro F1 on the tracks of that fold" in first
    assert f"trained on a part of the {40 * len(card.classes)} tracks" in first
    assert "learned from all tracks" not in first


def test_the_card_of_a_model_of_precomputed_spectrograms_offers_no_tagging(card: ModelCard) -> None:
    text = model_card.markdown(dataclasses.replace(card, features={"origin": "somebody"}))
    assert "genre tag" not in text
    assert "takes features of the same kind and no audio" in text


def test_genres_with_few_tracks_are_named(card: ModelCard) -> None:
    corpus = CorpusFacts("a", "b", "c", tracks={"train": {"blues": 3, "disco": 60, "metal": 60, "rock": 60}})
    assert "fewer than 50 tracks: blues (3)." in model_card.markdown(card, corpus)
    rare = dataclasses.replace(corpus, tracks={"train": dict.fromkeys(boards.GENRES, 3)})
    assert "fewer than 50 tracks: every genre." in model_card.markdown(card, rare)


def test_a_model_that_started_from_another_says_so(card: ModelCard) -> None:
    sentence = "It started from the weights of another training"
    assert sentence not in model_card.markdown(card, boards.board().corpus)
    started = dataclasses.replace(card, facts=card.facts | {"settings": {"train": {"init_from": "/home/me/body"}}})
    assert sentence in model_card.markdown(started, boards.board().corpus)


def test_text_from_outside_is_escaped(card: ModelCard) -> None:
    names = [boards.EVIL, "a|b", "[x](http://evil.example)", "*y*"]
    corpus = CorpusFacts(boards.EVIL, boards.EVIL, boards.EVIL, {"train": dict.fromkeys(names, 1)})
    text = model_card.markdown(dataclasses.replace(card, classes=names), corpus, versions={boards.EVIL: "1"})
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\[x(?<!\\)\]\(", text)
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_the_card_is_written_into_the_folder_of_the_model(card: ModelCard, tmp_path: Path) -> None:
    model_card.write(Location.of(tmp_path), model_card.markdown(card))
    assert (tmp_path / "MODEL_CARD.md").read_text().startswith("---\nlibrary_name: genre\n")
