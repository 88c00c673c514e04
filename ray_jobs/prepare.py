"""Turn a corpus into log-mel features: scan, decode, spectrogram, Parquet, in parallel on all workers.

Run again after an interruption, or after adding files: only what is missing is done.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import pyarrow as pa

from genre import ledger
from genre.config import Config
from genre.errors import GenreError
from genre.preparation import Recipe, prepare_block
from genre.storage import Location
from ray_jobs import cli, cluster
from ray_jobs.progress import TrackProgress

import ray.data  # isort: skip


def run(config: Config) -> None:
    """Prepare `config.corpus` into OUTPUT/features. Raises `GenreError` when too many tracks are rejected."""
    with cluster.connected(config):
        prepare(config)


def prepare(config: Config) -> dict[str, Any]:
    """The job on a Ray that is already there; returns the manifest."""
    console = cli.console()
    folder = Location.of(config.output) / "features"
    recipe = Recipe.of(config)
    ledger.check_settings(folder, recipe)
    started = time.monotonic()
    console.print(f"prepare: scanning corpus {config.corpus.kind} {config.corpus.root}".rstrip())
    scanned = ledger.scan(config.corpus)
    todo = ledger.pending(scanned, ledger.outcomes(folder))
    console.print(f"prepare: {len(scanned)} tracks, {len(scanned) - len(todo)} already done, {len(todo)} to do")
    if len(todo):
        _run_blocks(todo, recipe, folder)
    manifest = ledger.finish(folder, scanned, config)
    _report(manifest, folder, time.monotonic() - started)
    _check_rejects(manifest, config, folder)
    return manifest


def _run_blocks(todo: pa.Table, recipe: Recipe, folder: Location) -> None:
    size = _block_size(len(todo), recipe.prepare.tracks_per_block)
    blocks = [todo.slice(begin, size) for begin in range(0, len(todo), size)]
    outcomes = ray.data.from_arrow(blocks).map_batches(
        prepare_block,
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        fn_args=(recipe, folder),
    )
    with TrackProgress("prepare", total=len(todo)) as progress:
        for batch in outcomes.iter_batches(batch_size=None, batch_format="pyarrow"):
            progress.advance(len(batch), rejected=len(batch) - batch["reason"].null_count)


def _block_size(tracks: int, limit: int) -> int:
    """Blocks of at most `limit` tracks; smaller ones for a small corpus, so that all workers get some.

    Depends on the number of tracks alone: the same corpus is cut the same on any cluster.
    """
    return min(limit, max(1, -(-tracks // 32)))


def _report(manifest: dict[str, Any], folder: Location, seconds: float) -> None:
    counts = manifest["counts"]
    cli.console().print(
        f"prepare: {counts['tracks']} tracks with {counts['clips']} clips, {counts['rejected']} rejected, "
        f"in {seconds:.0f} s -> {folder}"
    )
    for reason, number in counts["reasons"].items():
        cli.console().print(f"  {number:>6} {reason}")


def _check_rejects(manifest: dict[str, Any], config: Config, folder: Location) -> None:
    counts, limit = manifest["counts"], config.prepare.max_reject_fraction
    share = counts["rejected"] / max(1, counts["scanned"])
    if share > limit:
        raise GenreError(
            f"{counts['rejected']} of {counts['scanned']} tracks were rejected, more than "
            f"prepare.max_reject_fraction={limit:g}; see {folder / 'rejects.parquet'}, or allow more"
        )


if __name__ == "__main__":
    sys.exit(cli.main("prepare", __doc__, run))
