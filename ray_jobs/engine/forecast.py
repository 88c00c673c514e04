"""Forecast the work, time and price of `prepare` and `tag` from a sample that is decoded on this machine.

Needs no Ray, except to find out how many CPUs a cluster has.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre import registry
from genre.features.preparing.ledger import Ledger, select_pending
from genre.features.preparing.scan import check_present, scan
from genre.features.preparing.tracks import prepare_block
from genre.features.recipe import Recipe
from genre.features.splitting import balance
from genre.model.saved_model import SavedEnsemble
from genre.settings import ClusterSettings, Config
from genre.storage import Location
from genre.tagging import audio_files, tag_owner, tag_rows
from genre.tagging.known_contents import KnownContents
from genre.tagging.tag_table import TagTable
from genre.tagging.tagger import Tagger
from genre.wording import data_size, duration, money, plural
from ray_jobs.engine import cli
from ray_jobs.engine.models import find_models

_SAMPLE = 32  # tracks
_START_SECONDS = 10  # until Ray and the workers run, on two idle cores, see benchmarks/prepare_start.py


@dataclass(frozen=True)
class PendingWork:
    """The work on all pending tracks, estimated from a sample of them."""

    tracks: int
    sampled: int
    music_seconds: float  # of the sample
    core_seconds: float  # that the sample took

    def lines(self, cpus_now: int, max_cpus: int, price: float | None, noun: str = "track") -> Iterator[str]:
        """Yield the lines to print: amounts, times with `cpus_now` and with `max_cpus` (0: no limit), and the price.

        `price` is that of a core-hour, None without a price.
        """
        scale = self.tracks / max(1, self.sampled)
        core_seconds = scale * self.core_seconds
        core_hours = core_seconds / 3600
        yield (
            f"{plural(self.tracks, noun)} to do, {_hours(scale * self.music_seconds)} of music, "
            f"{_hours(core_seconds, 'core-')} by a sample of {self.sampled} on this machine"
        )
        times = [f"about {duration(core_seconds / cpus_now)} on {plural(cpus_now, 'CPU')} now"] if cpus_now else []
        if max_cpus:
            times.append(f"about {duration(core_seconds / max_cpus)} on cluster.max_cpus={max_cpus}")
        if times:
            yield f"{'; '.join(times)}; and about {duration(_START_SECONDS)} to start"
        else:
            yield "no CPU is up now; set cluster.max_cpus to get the time with this number of CPUs"
        if price is not None:
            amount = money(core_hours * price)
            yield f"price: {amount} at {price:g} a core-hour, without the time in which machines boot"


def _hours(seconds: float, unit: str = "") -> str:
    """Return such as "2.00 core-hours", or below six minutes "57 core-seconds"."""
    return f"{seconds / 3600:.2f} {unit}hours" if seconds >= 360 else f"{seconds:.1f} {unit}seconds"


def prepare(config: Config, price: float | None) -> None:
    """Print the forecast of `prepare`. Raises `GenreError` where the corpus cannot be listed."""
    plugin = registry.load("genre.corpora", config.corpus.kind)
    if hasattr(plugin, "is_composed") and not plugin.is_composed(config.corpus):
        cli.say(f"prepare: composes the corpus {config.corpus.kind} first; there is no forecast before")
        return
    recipe = Recipe.of(config)
    output = Location.of(config.output)
    with _copied(output / "scan") as known:
        scanned = scan(config.corpus, cli.say, known, output / "tags" / "written.csv")
    for line in balance.describe_single(scanned):
        cli.say(f"prepare: {line}")
    ledger = Ledger(output / "features", recipe)
    done = ledger.reusable_outcomes()
    check_present(scanned, done, ledger.folder)
    pending = select_pending(scanned, done)
    if not len(pending):
        cli.say("prepare: nothing to do")
        return
    sample = _sample(pending)
    with tempfile.TemporaryDirectory() as folder:
        target = Location.of(folder)
        prepare_block(sample.slice(0, 1), recipe, target, run=1)  # starts the decoder, which is not counted
        started = time.perf_counter()
        outcomes = prepare_block(sample, recipe, target, run=2)
        seconds = time.perf_counter() - started
        size = sum(os.path.getsize(file.path) for file in (target / "clips").files(".parquet") if "00002-" in file.name)
    music = pc.sum(outcomes["seconds"]).as_py() or 0.0
    _show("prepare", PendingWork(len(pending), len(sample), music, seconds), config, price)
    cli.say(f"prepare: features of {data_size(size * len(pending) / len(sample))}")


def tag(config: Config, price: float | None) -> None:
    """Print the forecast of `tag` with models on the CPU. Raises `GenreError` where models or inputs are missing."""
    ensemble = SavedEnsemble.read(find_models(config), config.min_precision)
    pending = audio_files.list_files(config.inputs)
    folder = Location.of(config.output) / "tags"
    if (folder / "models.json").exists() and not (config.tag.replace and tag_owner.is_replaced(folder, ensemble)):
        pending = TagTable(folder, ensemble).pending(pending, config.decoding.retry_rejects)
    if not len(pending):
        cli.say("tag: nothing to do")
        return
    sample = _sample(pending)
    tagger = Tagger(ensemble.load(config.decoding, threads=1), ensemble.calibration)
    tag_rows.tag_files(tagger, sample.slice(0, 1), KnownContents.none())  # starts the decoder, which is not counted
    started = time.perf_counter()
    decoded = tag_rows.decode_files(tagger.decode, sample, KnownContents.none())
    decoding = time.perf_counter() - started
    rows = tag_rows.name_files(tagger, decoded)
    seconds = time.perf_counter() - started
    music = pc.sum(rows["seconds"]).as_py() or 0.0
    _show("tag", PendingWork(len(pending), len(sample), music, seconds), config, price)
    cli.say(f"tag: {1 - decoding / max(seconds, 1e-9):.0%} of it for the models, which run on a GPU if there is one")


def _show(job: str, work: PendingWork, config: Config, price: float | None) -> None:
    noun = "file" if job == "tag" else "track"
    for line in work.lines(_cpus_now(config.cluster, config.output), config.cluster.max_cpus, price, noun):
        cli.say(f"{job}: {line}")


@contextmanager
def _copied(scans: Location) -> Iterator[Location]:
    """Yield a temporary copy of the earlier scans, because a forecast must not write, and `prepare` may be running."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Location.of(folder)
        for kept in scans.folders():
            for file in kept.files(".parquet"):
                with suppress(FileNotFoundError):  # a scan that ended meanwhile has joined it with others
                    (copy / kept.name / file.name).write_bytes(file.read_bytes())
        yield copy


def _sample(tracks: pa.Table) -> pa.Table:
    """Return at most `_SAMPLE` tracks, evenly spaced."""
    places = np.linspace(0, max(0, len(tracks) - 1), min(_SAMPLE, len(tracks))).astype(np.int64)
    return tracks.take(pa.array(places))


def _cpus_now(settings: ClusterSettings, output: str) -> int:
    """Return the number of CPUs now: of the cluster of RAY_ADDRESS, or of this machine as far as a job may use it."""
    if not os.environ.get("RAY_ADDRESS"):
        return settings.cpus or len(os.sched_getaffinity(0))
    from ray_jobs.engine import cluster, machines

    with cluster.connected(settings, output):
        return int(sum(machine.get("CPU", 0) for machine in machines.running()))
