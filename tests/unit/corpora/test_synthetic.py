"""Tests of the synthetic corpus: what the pipeline relies on, and that no single number separates its genres."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__  # type: ignore[import-not-found]

from genre import corpora, registry
from genre.corpora import Track, synthetic
from genre.corpora.synthetic import files
from genre.corpora.synthetic.compose import _choose_layers, compose
from genre.corpora.synthetic.instruments import SAMPLE_RATE
from genre.corpora.synthetic.styles import STYLES
from genre.errors import ConfigError
from genre.settings import CorpusSettings

SMALL = {"tracks_per_genre": 8, "artists_per_genre": 4, "seconds": 1.0, "damaged": 7}


def settings(root: Path | str = "", split: str = "auto", **params: object) -> CorpusSettings:
    return CorpusSettings.model_validate(
        {"kind": "synthetic", "root": str(root), "split": split, "params": SMALL | params}
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("synthetic")


@pytest.fixture(scope="module")
def tracks(root: Path) -> list[Track]:
    return list(corpora.scan(settings(root)))


def is_damaged(track: Track) -> bool:
    return not track.track_id[-3:].isdigit()


def test_has_ten_classes_in_order() -> None:
    names = corpora.classes(settings())
    assert names == sorted(STYLES)
    assert names is not None
    assert len(names) == 10


def test_a_folder_with_music_of_others_is_not_written_to(tmp_path: Path) -> None:
    """As of a user who forgot to name the kind of the corpus."""
    (tmp_path / "Artist").mkdir()
    (tmp_path / "Artist" / "song.flac").touch()
    with pytest.raises(ConfigError, match=r"holds other files, .* set corpus\.kind=folder, tags or table"):
        list(corpora.scan(settings(tmp_path)))
    with pytest.raises(ConfigError, match="holds other files"):
        synthetic.is_composed(settings(tmp_path))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["Artist", "song.flac"]


def test_hidden_files_and_those_of_a_file_system_are_no_music_of_others(tmp_path: Path) -> None:
    """As of a killed process that wrote the marker, or of a new disk."""
    (tmp_path / ".corpus.json.0a1b").touch()
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "lost+found").mkdir()
    assert not synthetic.is_composed(settings(tmp_path))
    assert len(list(corpora.scan(settings(tmp_path, tracks_per_genre=3, damaged=0)))) == 30


def test_helpers_are_not_plug_ins() -> None:
    assert "synthetic" in registry.names("genre.corpora")
    assert not any(name.startswith("_") for name in registry.names("genre.corpora"))


def test_every_pattern_fills_its_bar() -> None:
    for name, style in STYLES.items():
        for pattern in (*style.kick, *style.snare, *style.hat, *style.bass, *style.chords):
            steps = pattern.replace(" ", "")
            assert len(steps) % style.beats == 0, (name, pattern)
            assert len(steps) in (12, 16), (name, pattern)


def test_tracks_are_listed_once_and_in_order(tracks: list[Track]) -> None:
    ids = [track.track_id for track in tracks]
    assert ids == sorted(set(ids))
    intact = Counter(track.genre for track in tracks if not is_damaged(track))
    assert intact == dict.fromkeys(STYLES, SMALL["tracks_per_genre"])


def test_track_has_the_size_time_and_path_of_its_file(root: Path, tracks: list[Track]) -> None:
    for track in tracks:
        status = os.stat(track.path)
        assert (track.size, track.modified) == (status.st_size, status.st_mtime)
        assert Path(track.path).relative_to(root).with_suffix("").as_posix() == track.track_id
        assert track.track_id.startswith(f"{track.genre}/")


def test_groups_are_in_one_split(tracks: list[Track]) -> None:
    splits_of_group = defaultdict(set)
    for track in tracks:
        splits_of_group[track.group].add(track.split)
    assert len(splits_of_group) == 10 * int(SMALL["artists_per_genre"])
    assert all(len(splits) == 1 for splits in splits_of_group.values())


@pytest.mark.parametrize(
    ("artists", "train", "valid", "test"), [(1, 1, 0, 0), (2, 1, 0, 1), (3, 1, 1, 1), (4, 2, 1, 1), (8, 5, 1, 2)]
)
def test_published_split_is_by_artist(tmp_path: Path, artists: int, train: int, valid: int, test: int) -> None:
    tracks = corpora.scan(settings(tmp_path, tracks_per_genre=artists, artists_per_genre=artists, damaged=0))
    counts = Counter(track.split for track in tracks)
    assert counts == Counter(train=10 * train, valid=10 * valid, test=10 * test)


def test_random_split_is_not_decided_here(root: Path, tracks: list[Track]) -> None:
    assert {track.split for track in corpora.scan(settings(root, split="random"))} == {None}


def test_damaged_files_are_tracks_but_the_system_file_is_not(root: Path, tracks: list[Track]) -> None:
    assert sum(map(is_damaged, tracks)) == SMALL["damaged"]
    assert list(root.rglob("._*")) == [root / synthetic.SYSTEM_FILE]
    assert not any("_system" in track.path for track in tracks)


def test_intact_tracks_can_be_read_and_have_many_formats(tracks: list[Track]) -> None:
    forms: Counter[str | int] = Counter()
    for track in filter(lambda track: not is_damaged(track), tracks):
        sound, rate = soundfile.read(track.path)
        info = soundfile.info(track.path)
        assert np.isfinite(sound).all()
        assert 0.8 < len(sound) / rate < 2.6
        forms.update([info.format, f"{info.format} {info.subtype}", info.samplerate, info.channels])
    assert {"WAV", "FLAC", "OGG", "MP3", "WAV PCM_16", "WAV PCM_24", "WAV FLOAT"} <= set(forms)
    assert {16000, 22050, 32000, 44100, 48000, 1, 2} <= set(forms)


def read(content: bytes) -> np.ndarray:
    return np.asarray(soundfile.read(io.BytesIO(content))[0])


def test_damage_matches_its_name() -> None:
    content = {name: damage.make() for name, damage in files.DAMAGES.items()}
    assert content["empty"] == b""
    for name in ("text", "truncated"):
        with pytest.raises(soundfile.LibsndfileError):
            read(content[name])
    assert not read(content["silent"]).any()
    assert np.isnan(read(content["nan"])).any()
    assert len(read(content["short"])) / SAMPLE_RATE == pytest.approx(0.05, abs=1e-3)


def test_equal_settings_give_equal_files(root: Path, tracks: list[Track], tmp_path: Path) -> None:
    for first, second in zip(tracks, corpora.scan(settings(tmp_path)), strict=True):
        assert (first.track_id, first.genre, first.group) == (second.track_id, second.genre, second.group)
        contents = Path(first.path).read_bytes(), Path(second.path).read_bytes()
        if first.path.endswith(".ogg"):  # the number of the stream is random, but the audio is not
            np.testing.assert_array_equal(read(contents[0]), read(contents[1]))
        else:
            assert contents[0] == contents[1], first.track_id


def test_complete_folder_is_reused(root: Path, tracks: list[Track]) -> None:
    assert list(corpora.scan(settings(root))) == tracks


def test_interrupted_rendering_resumes(tmp_path: Path) -> None:
    before = list(corpora.scan(settings(tmp_path, tracks_per_genre=1)))
    os.remove(before[3].path)
    after = list(corpora.scan(settings(tmp_path, tracks_per_genre=1)))
    assert [track.track_id for track in after] == [track.track_id for track in before]
    assert after[:3] + after[4:] == before[:3] + before[4:]


def test_other_settings_use_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, second = (next(corpora.scan(settings(tracks_per_genre=1, seed=seed))) for seed in (0, 1))
    assert first.track_id == second.track_id
    assert len(list((tmp_path / "genre").iterdir())) == 2


@pytest.mark.parametrize("cache", ["", "relative/is/ignored"])
def test_default_folder_belongs_to_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: str) -> None:
    """Another user could create a link under a predictable name in /tmp."""
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("HOME", str(tmp_path))
    track = next(corpora.scan(settings(tracks_per_genre=1)))
    assert Path(track.path).is_relative_to(tmp_path / ".cache" / "genre")


def test_folder_of_other_settings_is_refused(root: Path, tracks: list[Track]) -> None:
    with pytest.raises(ConfigError, match="other settings"):
        next(corpora.scan(settings(root, seed=1)))


def test_remote_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match="local folder"):
        next(corpora.scan(settings("s3://bucket/music")))


def test_audio_is_in_range_and_repeatable() -> None:
    for genre in STYLES:
        audio = compose(genre, 1, 2, seconds=1.5, ambiguity=1.0)
        assert audio.dtype == np.float32
        assert audio.shape == (int(1.5 * SAMPLE_RATE),)
        assert np.abs(audio).max() < 1
        np.testing.assert_array_equal(audio, compose(genre, 1, 2, seconds=1.5, ambiguity=1.0))


def test_audio_is_the_same_on_processors_without_avx() -> None:
    """NumPy chooses its loops by processor; the subprocess disables those that need AVX."""
    program = (
        "import hashlib; from genre.corpora.synthetic.compose import compose\n"
        "print(*(hashlib.sha256(compose('house', n, n, 2.0)).hexdigest() for n in range(3)))"
    )
    dispatched = " ".join(name for name in __cpu_dispatch__ if __cpu_features__[name])
    without_avx = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"NPY_DISABLE_CPU_FEATURES": dispatched},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [hashlib.sha256(compose("house", n, n, 2.0).tobytes()).hexdigest() for n in range(3)]
    assert without_avx.stdout.split() == expected


@pytest.mark.parametrize(("ambiguity", "borrowed"), [(0.0, {0}), (1.0, {1, 2})])
def test_ambiguous_track_keeps_at_least_one_layer_of_its_genre(ambiguity: float, borrowed: set[int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        layers = _choose_layers("waltz", rng, ambiguity)
        parts = (layers.drums, layers.bass, layers.chords)
        assert sum(part is not STYLES["waltz"] for part in parts) in borrowed
        assert layers.tempo is STYLES["waltz"]


def test_tempo_ranges_overlap() -> None:
    slowest = max(style.tempo[0] for style in STYLES.values())
    fastest = min(style.tempo[1] for style in STYLES.values())
    assert all(fastest - slowest > 0.6 * (style.tempo[1] - style.tempo[0]) for style in STYLES.values())


def test_no_single_number_separates_the_genres() -> None:
    """The genre nearest by loudness, crest factor or brightness is rarely the right one (chance: 10 %)."""
    artists, half = range(20), 10
    audio = np.stack(
        [
            [compose(genre, artist_seed=1000 * index + n, track_seed=n, seconds=2.0) for n in artists]
            for index, genre in enumerate(sorted(STYLES))
        ]
    )
    loudness = 10 * np.log10(np.mean(audio**2, axis=-1))
    peak = 20 * np.log10(np.abs(audio).max(axis=-1)) - loudness
    brightness = 10 * np.log10(np.mean(np.diff(audio) ** 2, axis=-1)) - loudness
    for number in (loudness, peak, brightness):
        known, unknown = number[:, :half], number[:, half:]
        nearest = np.abs(unknown[..., None] - known.mean(axis=1)).argmin(axis=-1)
        assert np.mean(nearest == np.arange(10)[:, None]) < 0.3
