"""Turn a corpus into log-mel features: scan, decode, spectrogram, Parquet, in parallel on all workers.

Write OUTPUT/features. Run again after an interruption, or after adding files, it does only what is missing.
"""

from __future__ import annotations

import functools
import sys
import time

import pyarrow as pa

from genre import memory
from genre.errors import GenreError
from genre.features import Manifest, duplicates, finishing, ledger
from genre.features.preparation import select_unchanged
from genre.features.recipe import Recipe
from genre.features.scan import scan
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import cli, cluster
from ray_jobs.engine.blocks import Workers
from ray_jobs.engine.metrics import prepare_and_count
from ray_jobs.engine.progress import TrackProgress


def run(config: Config) -> None:
    """Prepare `config.corpus` into OUTPUT/features. Raises `GenreError` when too many tracks are rejected."""
    memory.return_freed()
    prepare(config)


def prepare(config: Config, workers: Workers | None = None) -> Manifest:
    """The job on a Ray that is already there, or on one of its own, or with nothing to do on none; the manifest."""
    folder = Location.of(config.output) / "features"
    cluster.check_writable(config)  # before a long scan, or the composing of a corpus
    ledger.check_settings(folder, Recipe.of(config))
    started = time.monotonic()
    cli.console().print(f"prepare: scanning corpus {config.corpus.kind} {config.corpus.root}".rstrip())
    scanned = scan(config.corpus)
    number = ledger.next_run(folder)
    with workers or Workers(config) as workers:
        # nobody holds on to the list of what is to do, so that its memory is free for the tables
        _decode(_find_todo(scanned, config, folder, number, workers), config, folder, number, workers)
    manifest = finishing.finish(folder, scanned, config)
    _report(manifest, folder, time.monotonic() - started)
    _check_rejects(manifest, config, folder)
    return manifest


def _find_todo(scanned: pa.Table, config: Config, folder: Location, number: int, workers: Workers) -> pa.Table:
    """The tracks that must be decoded, after reading those of which only that can tell."""
    done = ledger.select_reusable(ledger.read_outcomes(folder), folder, Recipe.of(config))
    suspects = ledger.select_for_comparison(scanned, done, config.prepare.verify_content)
    if len(suspects):
        done = ledger.apply_comparison(done, suspects, _compare(suspects, config, workers), folder, number)
    todo = ledger.select_undone(scanned, done)
    kept = len(scanned) - len(todo)
    gone = f"; {len(done) - kept} done before are gone or changed" if len(done) > kept else ""
    cli.console().print(f"prepare: {len(scanned)} tracks, {kept} already done, {len(todo)} to do{gone}")
    return todo


def _compare(suspects: pa.Table, config: Config, workers: Workers) -> pa.Table:
    """Those of the suspects whose content is what was prepared."""
    cli.console().print(f"prepare: comparing the content of {len(suspects)} files with what was prepared")
    same = workers.map(select_unchanged, suspects, config.prepare.tracks_per_block)
    return pa.concat_tables([suspects.schema.empty_table(), *same])


def _decode(todo: pa.Table, config: Config, folder: Location, number: int, workers: Workers) -> None:
    if not len(todo):
        return
    recipe = Recipe.of(config)
    ledger.claim(folder, recipe)
    work = functools.partial(prepare_and_count, recipe=recipe, folder=folder, run=number)
    with TrackProgress("prepare", total=len(todo)) as progress:
        for outcomes in workers.map(work, todo, config.prepare.tracks_per_block, columns=["reason"]):
            progress.advance(len(outcomes), rejected=len(outcomes) - outcomes["reason"].null_count)


def _report(manifest: Manifest, folder: Location, seconds: float) -> None:
    console, counts = cli.console(), manifest.counts
    console.print(
        f"prepare: {counts.tracks} tracks with {counts.clips} clips, {counts.rejected} rejected, "
        f"in {seconds:.0f} s -> {folder}"
    )
    for reason, number in counts.reasons.items():
        console.print(f"  {number:>6} {reason}")
    copied = counts.duplicates
    if copied.sets:
        told = f"prepare: {copied.copies} tracks repeat the audio of others, see {folder / 'duplicates.parquet'}"
        told += f"; {copied.excluded} left out, as published splits part them" if copied.excluded else ""
        told += f"; {copied.of_several_genres} times the genres differ" if copied.of_several_genres else ""
        console.print(told)
        for line in duplicates.describe((folder / "duplicates.parquet").read_table()):
            console.print(f"  {line}")


def _check_rejects(manifest: Manifest, config: Config, folder: Location) -> None:
    counts, limit = manifest.counts, config.prepare.max_reject_fraction
    share = counts.rejected / max(1, counts.scanned)
    if share > limit:
        raise GenreError(
            f"{counts.rejected} of {counts.scanned} tracks were rejected, more than "
            f"prepare.max_reject_fraction={limit:g}; see {folder / 'rejects.parquet'}, or allow more"
        )


if __name__ == "__main__":
    sys.exit(cli.main("prepare"))
