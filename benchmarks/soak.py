"""Run `tag` again and again on a folder where files appear and change, while its processes are killed at random.

Files appear as a copy writes them: first a part, then the rest. After each run that succeeds, no row may be lost and no
file may have two. At the end, without faults, each file has one row, equal to that of an undisturbed run on the folder.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from disturbances import disturb
from music import write_song
from results import tags_difference

from genre.storage import Location

if TYPE_CHECKING:
    from chaos import Chaos

OUTPUT = "s3://bucket/soak"
_PAUSE_SECONDS = 1.5  # between two files
_MOST_KILLS = 3  # in a run


class Music(threading.Thread):
    """Adds songs to a folder until it is stopped; sometimes it changes an earlier one."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        super().__init__(daemon=True)
        self.folder, self.changes = folder, 0
        self._dice, self._over = dice, threading.Event()
        for number in range(10):
            self._write(number, number)
        self._count = 10

    def run(self) -> None:
        seed = 1000
        while not self._over.wait(self._dice.uniform(0, 2 * _PAUSE_SECONDS)):
            is_change = self._dice.random() < 0.2
            number = self._dice.randrange(self._count) if is_change else self._count
            seed += 1
            self._write(number, seed)
            self.changes += is_change
            self._count += not is_change

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _write(self, number: int, seed: int) -> None:
        """Write a song in two parts, as a slow copy does."""
        song = write_song(self.folder.parent / "song.wav", seed, self._dice.uniform(0.6, 2.6)).read_bytes()
        half = len(song) // 2
        with open(self._path(number), "wb", buffering=0) as file:
            file.write(song[:half])
            self._over.wait(0.5 * self._dice.random())
            file.write(song[half:])

    def _path(self, number: int) -> Path:
        path = self.folder / f"album{number % 7}" / f"song{number:04d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def files(self) -> set[str]:
        return {str(path) for path in self.folder.rglob("*.wav")}


def soak(chaos: Chaos, minutes: float, model: str) -> bool:
    """Disturb `tag` for some minutes. Return whether each file has one row in the end, and no run lost any."""
    music = Music(chaos.folder / "soak", chaos.dice)
    chaos.undisturbed([])
    settings = [f"inputs={music.folder}", f"model={model}"]
    problems: list[str] = []
    failures: list[str] = []  # of runs that were not killed, such as those that lost the head
    kills: Counter[str] = Counter()
    before: set[str] = set()
    runs = starts = 0
    music.start()
    chaos.weather.is_calm = False
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        run = chaos.run("tag", OUTPUT, "soak", *settings)
        kills.update(kill.kind for kill in disturb(run, _MOST_KILLS, chaos.dice))
        runs, starts = runs + 1, starts + run.starts
        paths = _paths()
        problems += [f"run {runs}: {path} has {count} rows" for path, count in Counter(paths).items() if count > 1]
        problems += [f"run {runs}: the row of {path} is lost" for path in sorted(before - set(paths))]
        failures += run.failures
        before = set(paths)
        print(f"run {runs}: {run.starts} starts, {len(paths)} rows, failures {run.failures}", flush=True)
    music.stop()
    chaos.weather.is_calm = True
    for output in (OUTPUT, f"{OUTPUT}-undisturbed"):
        disturb(chaos.run("tag", output, "soak", *settings), 0, chaos.dice)
    if sorted(_paths()) != sorted(music.files()):
        problems.append(f"{len(music.files())} files and {len(_paths())} rows in the end")
    differs = tags_difference(Location.of(f"{OUTPUT}-undisturbed"), Location.of(OUTPUT))
    print(json.dumps({
        "minutes": minutes, "runs": runs, "starts": starts, "kills": kills, "faults": chaos.weather.faults,
        "files": len(music.files()), "changed": music.changes, "failures": failures, "problems": problems,
        "difference": differs,
    }))  # fmt: skip
    return not problems and not differs


def _paths() -> list[str]:
    """Return the path of each row of the tag table."""
    paths: list[str] = (Location.of(OUTPUT) / "tags" / "ledger.parquet").read_table(["path"])["path"].to_pylist()
    return paths
