"""The contracts of plug-ins, for the tests of the packages that have them: `check_architecture` and `check_corpus`.

Needs the extra `train`.

The contract tests of this project call the same checks. Each of them raises `AssertionError`; its name and its first
line say what a plug-in must do.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from genre import architectures, corpora, registry
from genre.audio import members
from genre.config import describe
from genre.corpora import SPLITS, UNUSED, Track
from genre.errors import GenreError
from genre.features import Shape
from genre.model import checkpoint
from genre.model.card import ModelCard
from genre.model.classifier import Classifier
from genre.settings import CorpusSettings, Settings
from genre.storage import Location

__all__ = ["ARCHITECTURE_CHECKS", "CORPUS_CHECKS", "check_architecture", "check_corpus"]

_CLASSES, _BINS = 8, 32
Params = dict[str, Any]


def check_architecture(name: str, /, **params: Any) -> None:
    """Check the architecture `name` with these settings of its own; small ones take seconds.

    Raises `AssertionError` where it breaks the contract.
    """
    for check in ARCHITECTURE_CHECKS:
        check(name, params)


def check_corpus(kind: str, root: str | Path, /, **params: Any) -> None:
    """Check the corpus `kind` on an example in the folder or file `root`, with these settings of its own.

    The example needs a few tracks; their files need no music. Raises `AssertionError` where it breaks the contract.
    """
    settings = CorpusSettings(kind=kind, root=str(root), params=params)
    for check in CORPUS_CHECKS:
        check(settings)


def every_parameter_has_a_gradient(name: str, params: Params) -> None:
    """Check that each weight learns, in float32 and in bfloat16."""
    for bf16 in (False, True):
        network = _build(name, params)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            _backward(_loss(network, _windows()))
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, f"{key} is not used by forward"
            assert torch.isfinite(parameter.grad).all(), f"{key} has a gradient that is not finite, bfloat16={bf16}"
            if parameter.ndim > 1:  # the gradient of a bias before batch norm is zero
                assert parameter.grad.abs().max() > 0, f"{key} has a gradient of zero"


def overfits_eight_clips(name: str, params: Params) -> None:
    """Check that the network learns eight windows by heart, without dropout where `Params` has it."""
    without = {"dropout": 0.0} if "dropout" in type(architectures.params(name, params)).model_fields else {}
    network, x = _build(name, params | without), _windows()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        _backward(_loss(network, x))
        optimizer.step()
    found = network.eval()(x).argmax(dim=1).tolist()
    assert found == list(range(_CLASSES)), f"learned {found} after 120 steps with a learning rate of 0.01"


def takes_any_number_of_bins_and_frames(name: str, params: Params) -> None:
    """Check shapes of spectrograms from one band and one frame: tracks may be shorter than a window."""
    for bins, frames in ((1, 1), (7, 3), (33, 31), (20, 1000), (128, 129)):
        network, x = _build(name, params, bins), _windows(2, bins, frames)
        _backward(_loss(network, x))
        logits = network.eval()(x)
        assert logits.shape == (2, _CLASSES), f"{tuple(logits.shape)} for windows (2, 1, {bins}, {frames})"
        assert torch.isfinite(logits).all(), f"logits are not finite for windows (2, 1, {bins}, {frames})"


def a_window_has_the_same_logits_in_any_batch(name: str, params: Params) -> None:
    """Check that in evaluation the other windows of a batch do not matter, and that the window does."""
    network, x = _build(name, params), _windows()
    network(x)  # sets the running statistics
    network.eval()
    with torch.inference_mode():
        expected = network(x)
        single = torch.cat([network(x[i : i + 1]) for i in range(len(x))])
        reversed_order = network(x.flip(0)).flip(0)
    torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(reversed_order, expected, rtol=1e-4, atol=1e-5)
    assert expected.std(dim=0).min() > 0, "different windows have equal logits"


def equal_seeds_give_equal_weights(name: str, params: Params) -> None:
    """Check that all initial weights come from torch's global generator."""
    first, second = _build(name, params).state_dict(), _build(name, params).state_dict()
    wrong = [key for key in first if not torch.equal(first[key], second[key])]
    assert not wrong, f"{wrong} differ between two networks of the same seed"


def every_value_of_the_search_space_is_a_valid_setting(name: str, params: Params) -> None:
    """Check `SEARCH`."""
    architectures.search_space(name)


def the_error_for_an_unknown_setting_names_its_full_key(name: str, params: Params) -> None:
    """Check that `Params` forbids unknown keys, as `genre.settings.Settings` does."""
    message = _error(lambda: architectures.params(name, {"widht": 3}))
    assert f"architectures.{name}.widht" in message, message or "no error"


def the_last_layer_applied_to_the_embedding_gives_the_logits(name: str, params: Params) -> None:
    """Check that nothing follows the last `nn.Linear`, whose inputs are the embedding."""
    network = _build(name, params)
    network(_windows())  # sets the running statistics
    mean, std = np.full(_BINS, -30, np.float32), np.full(_BINS, 9, np.float32)
    classifier = Classifier(network, mean, std, 80.0).eval()
    levels = _windows().squeeze(1) * 9 - 30
    with torch.inference_mode():
        logits, embeddings = classifier.embed(levels)
        torch.testing.assert_close(classifier.head(embeddings), logits)
        assert torch.equal(logits, classifier(levels))
    assert embeddings.shape == (len(levels), classifier.head.in_features), f"embeddings {tuple(embeddings.shape)}"
    assert torch.isfinite(embeddings).all()
    assert embeddings.std(dim=0).max() > 0, "different windows have equal embeddings"


def a_loaded_model_gives_the_same_logits(name: str, params: Params) -> None:
    """Check that parameters and buffers hold all that the network learns."""
    card = ModelCard(
        architecture=name,
        params=architectures.params(name, params).model_dump(mode="json"),
        classes=[f"genre {i}" for i in range(_CLASSES)],
        features={},
        fingerprint="",
        shape=Shape(_BINS, 40, 80.0, 0.023),
        window_seconds=0.5,
        eval_windows=2,
    )
    saved = checkpoint.build(card, np.full(_BINS, -30, np.float32), np.full(_BINS, 9, np.float32))
    saved(_windows().squeeze(1))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Location.of(folder), card, saved)
        loaded_card, loaded = checkpoint.load(Location.of(folder))
    assert loaded_card == card, "Params is not the same after it was written as JSON"
    with torch.inference_mode():
        assert torch.equal(loaded(_windows().squeeze(1)), saved.eval()(_windows().squeeze(1))), "other logits"


def module_has_its_parts(settings: CorpusSettings) -> None:
    """Check the docstring of the module, `Params` with a description of each field, and `scan`."""
    module = registry.load("genre.corpora", settings.kind)
    assert module.__doc__, "the module has no docstring"
    assert issubclass(module.Params, Settings)
    for key, _, meaning in describe(module.Params()):
        assert meaning, f"Params.{key} has no description"
    assert callable(module.scan)


def tracks_are_well_formed(settings: CorpusSettings) -> None:
    """Check each field of each track."""
    tracks = _scan(settings)
    assert tracks, "the example has no track"
    for track in tracks:
        assert isinstance(track, Track), f"{track!r} is no genre.corpora.Track"
        assert track.track_id.encode(), f"{track} has no track_id that UTF-8 holds"
        assert isinstance(track.path, str), f"the path of {track} is no text"
        assert track.genre or (track.genre is None and track.split in UNUSED), f"{track} has no genre"
        assert track.group is None or track.group, f"the group of {track} is empty; use None"
        assert track.fold is None or track.fold, f"the fold of {track} is empty; use None"
        assert track.split in (None, *SPLITS, *UNUSED), f"{track} has an unknown split"
        assert track.size >= corpora.MISSING, f"{track} has a negative size"
        assert track.modified >= 0, f"{track} has a negative time"


def ids_are_unique(settings: CorpusSettings) -> None:
    """Check that no two tracks have the same `track_id`."""
    ids = _ids(settings)
    assert len(set(ids)) == len(ids), f"{sorted({each for each in ids if ids.count(each) > 1})} are repeated"


def scan_is_repeatable(settings: CorpusSettings) -> None:
    """Check that two scans yield the same tracks in the same order."""
    assert _scan(settings) == _scan(settings)


def size_is_that_of_the_file_or_missing(settings: CorpusSettings) -> None:
    """Check that `path` leads to a file from any working directory, or `size` is `MISSING`."""
    for track in _scan(settings):
        file = Location.of(members.file_of(track.path))
        found = len(file.read_bytes()) if file.exists() else corpora.MISSING
        assert track.size == found, f"{track.track_id!r} has size {track.size}, and {file} has {found}"


def system_files_are_not_tracks(settings: CorpusSettings) -> None:
    """Check that hidden files and those of operating systems are left out."""
    names = {Path(track.path).name for track in _scan(settings)}
    wrong = [name for name in names if corpora.is_system_file(name) or name.endswith(".jpg")]
    assert not wrong, f"{wrong} are tracks; see genre.corpora.is_audio"


def genres_are_among_the_classes(settings: CorpusSettings) -> None:
    """Check `classes`, where the corpus has it."""
    classes = corpora.classes(settings)
    assert classes == corpora.classes(settings)
    if classes is not None:
        assert len(set(classes)) == len(classes) >= 2, f"{classes} are not two or more different genres"
        assert {track.genre for track in _scan(settings) if track.genre} <= set(classes)


def random_split_is_not_decided_by_the_corpus(settings: CorpusSettings) -> None:
    """Check that labelled tracks have neither split nor fold where `settings.split` is `random`."""
    random = settings.model_copy(update={"split": "random"})
    labelled = [track for track in _scan(random) if track.genre]
    assert {track.split for track in labelled} == {None}, "a track has a split"
    assert {track.fold for track in labelled} == {None}, "a track has a fold"
    assert _ids(random) == _ids(settings)


def ids_do_not_change_when_the_corpus_moves(settings: CorpusSettings) -> None:
    """Check that `track_id` does not depend on `root`: prepared tracks are found again by it."""
    root = Path(settings.root)
    with tempfile.TemporaryDirectory() as folder:
        moved = Path(folder) / "moved"
        shutil.copytree(root if root.is_dir() else root.parent, moved)
        there = settings.model_copy(update={"root": str(moved if root.is_dir() else moved / root.name)})
        assert _ids(there) == _ids(settings)


def error_names_an_unknown_parameter(settings: CorpusSettings) -> None:
    """Check that `Params` forbids unknown keys, as `genre.settings.Settings` does."""
    message = _error(lambda: _scan(settings.model_copy(update={"params": {"no_such_thing": 1}})))
    assert "corpus.params.no_such_thing" in message, message or "no error"


def bad_root_gives_an_error_of_one_line(settings: CorpusSettings) -> None:
    """Check that a root that cannot be read raises a `GenreError` of one line."""
    message = _error(lambda: _scan(settings.model_copy(update={"root": "nowhere://at/all"})))
    assert "\n" not in message, f"{message} has several lines"
    assert message, "no error for corpus.root=nowhere://at/all; see genre.corpora.open_root"


def _build(name: str, params: Params, bins: int = _BINS) -> nn.Module:
    torch.manual_seed(0)
    return architectures.build(name, params, bins, _CLASSES)


def _windows(batch: int = 8, bins: int = _BINS, frames: int = 40) -> torch.Tensor:
    return torch.randn(batch, 1, bins, frames, generator=torch.Generator().manual_seed(1))


def _loss(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(network(x).float(), torch.arange(len(x)) % _CLASSES)


def _backward(loss: torch.Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def _scan(settings: CorpusSettings) -> list[Track]:
    return list(corpora.scan(settings))


def _ids(settings: CorpusSettings) -> list[str]:
    return [track.track_id for track in _scan(settings)]


def _error(action: Callable[[], object]) -> str:
    """Return the message of the `GenreError` that an action raises, "" for none."""
    try:
        action()
    except GenreError as error:
        return str(error)
    return ""


ARCHITECTURE_CHECKS: tuple[Callable[[str, Params], None], ...] = (
    every_parameter_has_a_gradient,
    overfits_eight_clips,
    takes_any_number_of_bins_and_frames,
    a_window_has_the_same_logits_in_any_batch,
    equal_seeds_give_equal_weights,
    every_value_of_the_search_space_is_a_valid_setting,
    the_error_for_an_unknown_setting_names_its_full_key,
    the_last_layer_applied_to_the_embedding_gives_the_logits,
    a_loaded_model_gives_the_same_logits,
)
CORPUS_CHECKS: tuple[Callable[[CorpusSettings], None], ...] = (
    module_has_its_parts,
    tracks_are_well_formed,
    ids_are_unique,
    scan_is_repeatable,
    size_is_that_of_the_file_or_missing,
    system_files_are_not_tracks,
    genres_are_among_the_classes,
    random_split_is_not_decided_by_the_corpus,
    ids_do_not_change_when_the_corpus_moves,
    error_names_an_unknown_parameter,
    bad_root_gives_an_error_of_one_line,
)
