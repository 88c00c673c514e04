"""A copy of the checkout with small music, in which the documents' commands can be run."""

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
from documents import ENTRIES, Block, Scenario, commands, entries_of, files
from heads import copy_checkout
from library import write_tags
from making import SMALL_MODELS
from running import ENVIRONMENT
from saving import song

from genre.corpora import fma, gtzan
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import cli, jobs

_JOB = re.compile(r"(?:python -m ray_jobs\.|\bgenre )(\w+)")
# appended to the command of a job, so that it takes seconds
FEATURES = (
    "audio.clip_seconds=2 spectrogram.n_mels=32 spectrogram.n_fft=1024 train.window_seconds=1 "
    "cluster.object_store_mb=100"
)
TRAINING = (
    f"{FEATURES} device=cpu train.epochs=1 train.windows_per_clip=1 train.eval_windows=2 train.batch_size=16 "
    f"'architectures={json.dumps(SMALL_MODELS)}'"
)
SMALL = {
    "prepare": FEATURES,
    "train": TRAINING,
    "tune": (
        f"{TRAINING} tune.gpus_per_trial=0 tune.trials=1 tune.seeds=1 tune.grace_epochs=1 tune.robustness=false "
        "'tune.architectures=[crnn_attention, resnet]'"
    ),
    "evaluate": TRAINING,
    "tag": "cluster.object_store_mb=100 device=cpu",
    "explain": "explain.steps=4",
    "serve": "cluster.object_store_mb=100",
}
# what a job leaves below its output, as docs/USING_MODELS.md and README.md say
RESULTS = {
    "prepare": "features/manifest.json",
    "train": "models/{model}/model.json",
    "tune": "leaderboard/leaderboard.html",
    "evaluate": "evaluation/leaderboard.html",
    "leaderboard": "compared/leaderboard.html",
    "tag": "tags/tags.csv",
}


@dataclass
class Workspace:
    """The folder where commands are run, and the environment of the person who types them."""

    folder: Path
    environment: dict[str, str]
    values: dict[str, str] = field(default_factory=dict)  # of the placeholders in the documents

    def write_files(self, page: str) -> None:
        """Write the files that a page shows. The text of a file that exists is appended to it."""
        for block in files(page):
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{block.text}\n")

    def shell(self, line: str, code: int = 0) -> str:
        """Run a line in bash and return its output; its exit code must be `code`."""
        done = subprocess.run(
            self.command(line), cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def command(self, line: str) -> list[str]:
        """Return the line with its placeholders filled in and, for a job, settings that make it small."""
        for placeholder, value in self.values.items():
            line = re.sub(rf"(?<!\w){placeholder}(?!\w)", value, line)
        return ["bash", "-c", f"{line} {SMALL.get(job_of(line), '')}"]

    def settings(self, line: str) -> Config:
        """Return the settings that the line gives its job."""
        command = self.command(line)[-1]
        match = _JOB.search(command)
        assert match, f"{line} runs no job"
        listed = subprocess.run(
            ["bash", "-c", f"printf '%s\n' {command[match.end() :]}"],
            capture_output=True, text=True, check=True, env=self.environment,
        )  # fmt: skip
        arguments = [argument for argument in listed.stdout.splitlines() if argument]
        file = arguments[arguments.index("--config") + 1] if "--config" in arguments else None
        given = [argument for argument in arguments if "=" in argument]
        return cli.settings_of(jobs.JOBS[match[1]], file and str(self.folder / file), given)

    def run(self, line: str) -> str:
        """Run the line of a job and check that the documented result exists."""
        output, job = self.shell(line), job_of(line)
        if job in RESULTS and re.search("--config|output=", line) and "--dry-run" not in line:
            settings = self.settings(line)
            with contextlib.chdir(self.folder):
                result = Location.of(settings.output)
                for part in RESULTS[job].format(model=settings.architecture).split("/"):
                    result = result / part
                assert result.exists(), f"{line}\ndid not write {result}\n{output}"
        return output


def job_of(line: str) -> str:
    """Return the job that a line runs, or an empty text."""
    match = _JOB.search(line)
    return match[1] if match else ""


def lines(scenario: str) -> list[Block]:
    """Return the commands of a scenario in the order of the pages, each once."""
    entries = [entry for entry in ENTRIES if isinstance(entry, Scenario) and entry.name == scenario]
    chosen = {command.normal: command for command in reversed(commands()) if entries_of(command, entries)}
    assert chosen, f"no page has a command of {scenario!r}"
    return list(reversed(chosen.values()))


@contextlib.contextmanager
def made(folder: Path, variables: Mapping[str, str] | None = None) -> Iterator[Workspace]:
    """Make a workspace with music at /music, /data and ~/Music, and a song."""
    checkout = copy_checkout(folder / "checkout")
    shutil.rmtree(checkout / ".venv")
    (checkout / ".venv").symlink_to(sys.prefix)
    shutil.rmtree(checkout / "outputs")
    home = folder / "home"
    for unsorted in (home / "Music", folder / "music/unsorted"):
        for number in range(3):
            song(unsorted / f"{number}.flac", seconds=2, hertz=200 + 300 * number)
    song(checkout / "song.mp3", seconds=5)
    for number, name in enumerate(("labelled", "other")):
        write_labelled(folder / "music" / name, number)
    for seed, name in enumerate(("rock-ann-one", "rock-bob-two", "folk-ann-three", "folk-cy-four")):
        song(folder / "music/flat" / f"{name}.flac", seconds=2, hertz=200 + 100 * seed, seed=seed)
    write_gtzan(folder / "data/gtzan")
    write_fma(folder / "data/fma")
    write_spectrograms(checkout / "spectrograms.parquet")
    environment = ENVIRONMENT | {
        "HOME": str(home),
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),  # comes before an editable install of another checkout
    }
    assert shutil.which("genre", path=environment["PATH"]), "the command genre is not installed; make install"
    values = {"/music": str(folder / "music"), "/data": str(folder / "data")}
    yield Workspace(checkout, environment | dict(variables or {}), values)


def write_labelled(root: Path, seed: int) -> None:
    for genre in range(3):
        for artist in range(8):
            path = root / f"genre{genre}" / f"artist{artist}" / "song.flac"
            song(path, seconds=2, hertz=150 * 2**genre, seed=100 * seed + 10 * genre + artist)


def write_tagged(root: Path) -> None:
    """Write a library of two genres by six artists, as large as the defaults demand, and three files without tags."""
    for number in range(40):
        genre, artist = number % 2, number % 6
        path = song(root / f"Artist {artist}" / f"{number}.flac", seconds=2, hertz=150 * 4**genre, seed=number)
        write_tags(path, genre=("Rock", "Jazz")[genre], artist=f"Artist {artist}")
    for number in range(3):
        song(root / f"{number}.wav", seconds=2, seed=100 + number)


def write_gtzan(root: Path, per_split: int = 3) -> None:
    """Write three tracks of each genre and split of the fault-filtered GTZAN."""
    for position, genre in enumerate(gtzan.GENRES):
        for split in ("train", "valid", "test"):
            names = [f"{genre}.{number:05d}" for number in range(100)]
            for name in [name for name in names if gtzan.official_split(name) == split][:per_split]:
                # noise of its own, as the same noise below another tone is a near copy
                seed = 100 * position + int(name[-2:])
                song(root / genre / f"{name}.wav", seconds=2, hertz=100 + 150 * position, seed=seed)


def write_fma(root: Path) -> None:
    """Write eight tracks of each genre of fma_small: four to train, two to validate, two to test."""
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
