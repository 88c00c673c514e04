"""A folder where the documents' lines can be typed: a copy of the checkout, small music, and what is written large."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from documents import ENTRIES, Story, Typed, entries_of, typed
from heads import copy_checkout
from making import SMALL_MODELS
from running import ENVIRONMENT
from saving import song

from genre import config
from genre.corpora import fma, gtzan
from genre.storage import Location

_JOB = re.compile(r"(?:python -m ray_jobs\.|\bgenre )(\w+)")
# put behind a job's line, so that it takes seconds
FEATURES = (
    "audio.clip_seconds=2 spectrogram.n_mels=32 spectrogram.n_fft=1024 train.window_seconds=1 "
    "cluster.object_store_mb=100"
)
TRAINING = (
    f"{FEATURES} train.device=cpu train.epochs=1 train.windows_per_clip=1 train.eval_windows=2 train.batch_size=16 "
    f"'models={json.dumps(SMALL_MODELS)}'"
)
SMALL = {
    "prepare": FEATURES,
    "train": TRAINING,
    "tune": (
        f"{TRAINING} tune.trials=1 tune.seeds=1 tune.grace_epochs=1 tune.robustness=false "
        "'tune.architectures=[crnn_attention, resnet]'"
    ),
    "evaluate": TRAINING,
    "tag": "cluster.object_store_mb=100 train.device=cpu",
    "explain": "explain.steps=4",
    "serve": "cluster.object_store_mb=100",
}
# what a job leaves below its output, as README says
LEAVES = {
    "prepare": "features/manifest.json",
    "train": "models/{model}/model.json",
    "tune": "leaderboard/leaderboard.html",
    "evaluate": "evaluation/leaderboard.html",
    "leaderboard": "compared/leaderboard.html",
    "tag": "tags/tags.csv",
}


@dataclass
class Place:
    """Where lines are typed, and the person's environment."""

    folder: Path
    environment: dict[str, str]
    words: dict[str, str] = field(default_factory=dict)  # what is put for words that stand for others

    def tell(self, line: str, ends: int = 0) -> str:
        """Run a line in bash and return what it printed; it must end with `ends`."""
        done = subprocess.run(
            self.command(line), cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == ends, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def command(self, line: str) -> list[str]:
        """The line with its placeholders filled in and, where it is a job's, settings that make it small."""
        for word, put in self.words.items():
            line = re.sub(rf"(?<!\w){word}(?!\w)", put, line)
        job = job_of(line)
        return ["bash", "-c", f"{line} {SMALL.get(job, '')}"]

    def settings(self, line: str) -> config.Config:
        """What the job of the line is told to do."""
        command = self.command(line)[-1]
        words = command[_JOB.search(command).end() :]
        listed = subprocess.run(
            ["bash", "-c", f"printf '%s\\n' {words}"], capture_output=True, text=True, check=True, env=self.environment
        )
        arguments = [word for word in listed.stdout.splitlines() if word]
        file = arguments[arguments.index("--config") + 1] if "--config" in arguments else None
        return config.load(file and str(self.folder / file), [word for word in arguments if "=" in word])

    def run(self, line: str) -> str:
        """Run a job's line; what README says that it writes must be there."""
        told, job = self.tell(line), job_of(line)
        if job in LEAVES and re.search("--config|output=", line):
            settings = self.settings(line)
            with contextlib.chdir(self.folder):
                place = Location.of(settings.output)
                for part in LEAVES[job].format(model=settings.model.name).split("/"):
                    place = place / part
                assert place.exists(), f"{line}\nleft no {place}\n{told}"
        return told


def job_of(line: str) -> str:
    """The job that a line runs, or nothing."""
    match = _JOB.search(line)
    return match[1] if match else ""


def lines(story: str) -> list[Typed]:
    """The lines of a story in the order of the pages, each once."""
    entries = [entry for entry in ENTRIES if isinstance(entry, Story) and entry.name == story]
    chosen = {line.normal: line for line in reversed(typed()) if entries_of(line, entries)}
    assert chosen, f"no page has a line of {story!r}"
    return list(reversed(chosen.values()))


@contextlib.contextmanager
def placed(folder: Path, variables: Mapping[str, str] | None = None) -> Iterator[Place]:
    """A checkout with its environment, music at /music, /data and ~/Music, and a song."""
    checkout = copy_checkout(folder / "checkout")
    shutil.rmtree(checkout / ".venv")
    (checkout / ".venv").symlink_to(sys.prefix)
    shutil.rmtree(checkout / "outputs")
    home = folder / "home"
    for place in (home / "Music", folder / "music/unsorted"):
        for number in range(3):
            song(place / f"{number}.flac", seconds=2, hertz=200 + 300 * number)
    song(checkout / "song.mp3", seconds=5)
    for number, name in enumerate(("labelled", "other")):
        write_labelled(folder / "music" / name, number)
    write_gtzan(folder / "data/gtzan")
    write_fma(folder / "data/fma")
    write_spectrograms(checkout / "spectrograms.parquet")
    environment = ENVIRONMENT | {"HOME": str(home), "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    assert shutil.which("genre", path=environment["PATH"]), "the command genre is not installed; make install"
    words = {"/music": str(folder / "music"), "/data": str(folder / "data")}
    yield Place(checkout, environment | dict(variables or {}), words)


def write_labelled(root: Path, seed: int) -> None:
    for genre in range(3):
        for artist in range(8):
            path = root / f"genre{genre}" / f"artist{artist}" / "song.flac"
            song(path, seconds=2, hertz=150 * 2**genre, seed=100 * seed + 10 * genre + artist)


def write_gtzan(root: Path, per_split: int = 3) -> None:
    """Three tracks of each genre in each side of the filtered split."""
    for position, genre in enumerate(gtzan.GENRES):
        for split in ("train", "valid", "test"):
            names = [f"{genre}.{number:05d}" for number in range(100)]
            for name in [name for name in names if gtzan.official_split(name) == split][:per_split]:
                song(root / genre / f"{name}.wav", seconds=2, hertz=100 + 150 * position, seed=int(name[-2:]))


def write_fma(root: Path) -> None:
    """Two tracks of each genre of fma_small for validation and for the test, four for training."""
    rows = [",set,set,artist,track", ",split,subset,id,genre_top", "track_id,,,,"]
    for position, genre in enumerate(fma.SMALL):
        for number, split in enumerate(["training"] * 4 + ["validation", "test"] * 2):
            track = 10 * position + number
            rows.append(f"{track},{split},small,{track},{genre}")
            path = root / "fma_small" / "000" / f"{track:06d}.mp3"
            song(path, seconds=2, hertz=100 + 150 * position, seed=track)
    (root / "fma_metadata").mkdir()
    (root / "fma_metadata/tracks.csv").write_text("\n".join(rows) + "\n")


def write_spectrograms(path: Path, bins: int = 129, frames: int = 60) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {
            "track_id": f"{genre}-{split}-{number}",
            "genre": genre,
            "split": split,
            "spectrogram": rng.integers(0, 255, (bins, frames), dtype=np.uint8).tobytes(),
        }
        for genre in ("folk", "rock")
        for split in ("train", "valid")
        for number in range(3)
    ]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"shape": f"{bins},{frames}"})
    pq.write_table(table, path)
