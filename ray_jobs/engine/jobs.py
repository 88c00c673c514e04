"""The jobs, and what the command line needs to know of each without importing it.

A job is a module `ray_jobs.<name>`: its docstring is shown as help, its `run(config)` does the work.
This module imports neither Ray nor torch nor any job.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genre.settings import Config


@dataclass(frozen=True)
class Job:
    """What a job needs. Settings are named by sections (`train`) or keys (`audio.clip_seconds`)."""

    settings: tuple[str, ...]  # read by the job and described one by one in its help
    other_settings: tuple[str, ...] = ()  # read by the job and listed in its help with their defaults
    positional: str = ""  # the key of an argument without `key=`
    short_keys: tuple[str, ...] = ()  # keys that may be written without their section
    lists_files: bool = False  # `inputs=-`, also written as --stdin0, is the paths on standard input
    builds: bool = False  # the job builds networks, so `architectures.*` is checked first
    needs_features: bool = False  # OUTPUT/features must be complete
    extra: str = "train"  # extra of this package with what the job imports
    forecast: str = ""  # function for --dry-run, by its name in this package
    is_priced: bool = False  # that function takes the price of a core-hour as well
    resumes: bool = True  # after an interruption, the same command does what is missing
    default_config: str | None = None  # the configuration file unless --config names one

    @property
    def reads(self) -> tuple[str, ...]:
        """All settings that the job reads."""
        return (*self.settings, *self.other_settings)


_LIMITS = tuple(
    f"decoding.{name}" for name in ("file_timeout_s", "max_file_memory_mb", "max_track_seconds", "min_decoded_fraction")
)
# of `tag`, which `embed` does too
_PASS = tuple(f"tag.{name}" for name in ("top_k", "values", "album", "batch_files", "replace"))
_NETWORK = ("architecture", "architectures")  # name a model in OUTPUT if `model` is empty and there is no leaderboard

# tests/ray/test_settings_read.py compares this table with what the jobs read
JOBS = {
    "fetch": Job(("fetch", "corpus.root"), positional="fetch.name", forecast="fetch.forecast"),
    "prepare": Job(
        ("output", "corpus", "prepare"),
        ("decoding", "audio", "spectrogram", "cluster"),
        forecast="engine.forecast.prepare",
        is_priced=True,
    ),
    "train": Job(
        ("output", "architecture", "architectures", "train"),
        ("device", "seed", "teacher", "audio", "spectrogram", "cache", "cluster"),
        short_keys=("train.init_from",),
        builds=True,
        needs_features=True,
    ),
    "pretrain": Job(
        ("output", "architecture", "architectures", "pretrain"),
        ("device", "seed", "train", "audio", "spectrogram", "cache", "cluster"),
        short_keys=("train.init_from",),
        builds=True,
        needs_features=True,
    ),
    "tune": Job(
        ("output", "architectures", "tune"),
        ("device", "seed", "train", "audio", "spectrogram", "cache", *_LIMITS, "cluster"),
        short_keys=("train.init_from",),
        builds=True,
        needs_features=True,
        forecast="tune.forecast",
        is_priced=True,
    ),
    "evaluate": Job(("output", "model", "evaluate"), ("device", "seed", "cache", "cluster")),
    "leaderboard": Job(("output", "leaderboard"), resumes=False),
    "tag": Job(
        ("inputs", "output", "model", "min_precision", "tag"),
        ("decoding", "device", *_NETWORK, "cluster"),
        positional="inputs",
        lists_files=True,
        short_keys=("tag.undo",),
        forecast="engine.forecast.tag",
        is_priced=True,
    ),
    "embed": Job(
        ("inputs", "output", "model", "min_precision", "embed", *_PASS),
        ("decoding", "device", *_NETWORK, "cluster"),
        positional="inputs",
        lists_files=True,
    ),
    "similar": Job(
        ("inputs", "output", "model", "similar"),
        ("min_precision", *_LIMITS),
        positional="inputs",
        short_keys=("similar.n",),
        resumes=False,
    ),
    "playlist": Job(
        ("output", "model", "playlist"),
        ("min_precision", *_LIMITS),
        short_keys=tuple(f"playlist.{name}" for name in ("like", "genre", "minutes", "file")),
        resumes=False,
    ),
    "explain": Job(
        ("inputs", "output", "model", "explain"),
        ("min_precision", *_LIMITS, *_NETWORK),
        positional="inputs",
        resumes=False,
    ),
    "export": Job(("output", "model"), ("min_precision", *_NETWORK), resumes=False),
    "serve": Job(
        ("output", "model", "serve"),
        ("min_precision", *_LIMITS, *_NETWORK, "cluster"),
        extra="serve",
        resumes=False,
    ),
    "review": Job(("output", "model", "review"), extra="serve", resumes=False),
    "demo": Job(
        ("output", "seed", "tune.trials", "tune.seeds", "tune.minutes", "cluster"),
        ("corpus", "audio", "spectrogram", "prepare", "decoding", "device", "cache", "train", "tune", "architectures"),
        builds=True,
        forecast="demo.forecast",
        default_config=str(Path(__file__).parents[1] / "demo.yaml"),
    ),
}


def purpose(name: str) -> str:
    """Return the docstring of the job's module, read from its source, since importing some jobs takes seconds."""
    spec = importlib.util.find_spec(f"ray_jobs.{name}")
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as source:
        return ast.get_docstring(ast.parse(source.read())) or ""


def load(name: str) -> Callable[[Config], None]:
    """Import the job and return its `run`."""
    loaded: Callable[[Config], None] = importlib.import_module(f"ray_jobs.{name}").run
    return loaded


def load_forecast(job: Job) -> Callable[..., None]:
    """Import the function that prints the job's forecast. It takes the settings, and a price if the job is priced."""
    module, _, function = job.forecast.rpartition(".")
    loaded: Callable[..., None] = getattr(importlib.import_module(f"ray_jobs.{module}"), function)
    return loaded
