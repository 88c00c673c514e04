"""Relevance maps: their sums, their dependence on the model, and the picture and page made of them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from making import SMALL_MODELS
from PIL import Image
from saving import CLASSES, save_model, song

from genre import Tagger, explaining
from genre.audio.excerpt import excerpt
from genre.errors import AudioError, ConfigError
from genre.features.preparing.tracks import PreparedTrack
from ray_jobs.engine import cli


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    return Tagger.load(save_model(tmp_path_factory.mktemp("model"), "crnn_attention"), precision=0)


@pytest.fixture(scope="module")
def track(tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> PreparedTrack:
    decoded: PreparedTrack = tagger.decode(song(tmp_path_factory.mktemp("music") / "song.wav", seconds=5))
    return decoded


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.randn(2, 32, 43, generator=torch.Generator().manual_seed(0)) * 10 - 30


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_relevances_sum_to_the_difference_in_log_probability(name: str, tmp_path: Path, windows: torch.Tensor) -> None:
    """Completeness, proposition 1 of Sundararajan et al."""
    classifier = Tagger.load(save_model(tmp_path, name, window_norm=True)).models[0].classifier
    relevance = explaining.integrated_gradients(classifier, windows, target=1, steps=64)
    with torch.no_grad():
        music = classifier(windows).log_softmax(dim=1)[:, 1]
        silence = classifier(classifier.mean.expand_as(windows)).log_softmax(dim=1)[:, 1]
    assert torch.allclose(relevance.sum(dim=(1, 2)), music - silence, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_the_map_depends_on_the_weights(name: str, tmp_path: Path, windows: torch.Tensor) -> None:
    """Sanity check of Adebayo et al. 2018: other random weights must give another map."""
    first, second = (
        Tagger.load(save_model(tmp_path / str(seed), name, seed=seed, window_norm=True)).models[0].classifier
        for seed in (1, 2)
    )
    relevance, again, other = (
        explaining.integrated_gradients(model, windows, target=0, steps=4).flatten() for model in (first, first, second)
    )
    assert torch.equal(relevance, again)
    assert abs(np.corrcoef(relevance, other)[0, 1]) < 0.5


def test_only_the_band_that_the_model_uses_is_relevant(tmp_path: Path, windows: torch.Tensor) -> None:
    """The model uses band 7 only."""
    classifier = Tagger.load(save_model(tmp_path, window_norm=True)).models[0].classifier

    class Band(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            level = x[:, 0, 7].mean(dim=1)
            return torch.stack([level, -level, 0 * level], dim=1)

    classifier.network = Band()
    relevance = explaining.integrated_gradients(classifier, windows, target=0, steps=4).abs().sum(dim=(0, 2))
    assert relevance.argmax() == 7
    assert relevance[7] == relevance.sum()


def test_the_explanation_covers_the_track(tagger: Tagger, track: PreparedTrack) -> None:
    explanation = explaining.explain(tagger.models[0], track, "jazz", steps=2)
    assert explanation.relevance.shape == explanation.levels.shape
    assert explanation.seconds == pytest.approx(5, abs=0.1)
    assert explanation.attention is not None
    assert explanation.attention.shape == (explanation.levels.shape[1],)
    assert explanation.attention.mean() == pytest.approx(1)
    assert len(explanation.by_second()) in (5, 6)
    assert sum(value for _, value in explanation.by_second()) == pytest.approx(explanation.relevance.sum(), rel=1e-3)
    assert sum(value for _, _, value in explanation.by_band()) == pytest.approx(explanation.relevance.sum(), rel=1e-3)
    assert np.all(np.diff(explanation.hertz) >= 0)
    short = explaining.explain(tagger.models[0], track, "jazz", steps=2, max_seconds=1.5)
    assert short.seconds == pytest.approx(1.5, abs=0.05)
    with pytest.raises(ConfigError, match=r"explain\.genre=polka: unknown; the model knows blues, jazz, rock"):
        explaining.explain(tagger.models[0], track, "polka")


def test_the_picture_has_a_width_by_its_duration(tagger: Tagger, track: PreparedTrack) -> None:
    explanation = explaining.explain(tagger.models[0], track, "jazz", steps=1)
    plain, framed = (
        Image.open(io.BytesIO(explaining.png(explanation, "título ♫", axes=axes))) for axes in (False, True)
    )
    assert plain.size == (600, 320)
    assert framed.size[0] > plain.size[0]


def test_the_excerpt_is_the_start_of_the_file(tmp_path: Path) -> None:
    path = song(tmp_path / "song.flac", seconds=4, rate=44100)
    wave, rate = soundfile.read(io.BytesIO(excerpt(str(path), 2.0)))
    assert rate == 22050
    assert len(wave) / rate == pytest.approx(2, abs=0.1)
    bad = tmp_path / "bad.mp3"
    bad.write_bytes(b"nothing")
    with pytest.raises(AudioError):
        excerpt(str(bad), 2.0)


def test_the_page_is_complete_and_escapes_names(tagger: Tagger, track: PreparedTrack) -> None:
    explanation = explaining.explain(tagger.models[0], track, "jazz", steps=1)
    page = explaining.html(explanation, "<script>alert(1)</script>", [("jazz", 0.7), ("rock", 0.3)], b"mp3", "cnn")
    assert "<script>alert" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("data-at=") >= len(explanation.by_second())
    assert "data:audio/mpeg;base64," in page


def test_the_job_writes_a_page_and_a_picture_for_each_song(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model(tmp_path / "model")
    song(tmp_path / "music" / "a.wav")
    song(tmp_path / "music" / "again" / "a.wav")
    (tmp_path / "music" / "bad.mp3").write_bytes(b"nothing")
    settings = [str(tmp_path / "music"), f"model={model}", f"output={tmp_path / 'out'}", "explain.steps=2"]
    assert cli.main("explain", settings) == 1
    messages = capsys.readouterr().err
    music, genre = re.escape(str(tmp_path / "music")), "|".join(CLASSES)
    for place, file in (("1 of 3", "a.wav"), ("2 of 3", "again/a.wav")):
        assert re.search(rf"explain: {place}: {music}/{file}: ({genre}) \d+%, most of all at 0:0\d -> ", messages)
    assert re.search(rf"explain: 3 of 3: {music}/bad\.mp3: ", messages)
    assert "could not read 1 of 3 files" in messages
    assert sorted(path.suffix for path in (tmp_path / "out/explained").iterdir()) == [".html"] * 2 + [".png"] * 2
