"""Turn a corpus into log-mel features: scan, decode, spectrogram, Parquet, in parallel on all workers.

Write OUTPUT/features. After an interruption, or with new files, the same command processes only what is missing.
OUTPUT/scan keeps what the scan read of files, such as their tags; it may be deleted.
"""

from __future__ import annotations

import functools
import sys
import time

import pyarrow as pa

from genre import lease, memory
from genre.errors import GenreError
from genre.features import balance, duplicates
from genre.features.finishing import finish
from genre.features.ledger import Ledger, select_for_comparison, select_pending
from genre.features.manifest import Counts, DuplicateCounts, Manifest
from genre.features.preparation import select_unchanged
from genre.features.recipe import Recipe
from genre.features.scan import check_present, scan
from genre.settings import Config, CorpusSettings, PrepareSettings
from genre.storage import Location
from genre.wording import duration, plural
from ray_jobs.engine import cli, reach
from ray_jobs.engine.blocks import Workers
from ray_jobs.engine.metrics import prepare_and_count
from ray_jobs.engine.progress import TrackProgress


def run(config: Config) -> None:
    """Prepare `config.corpus` into OUTPUT/features. Raises `GenreError` when too many tracks are rejected."""
    memory.return_freed()
    with lease.held(config.output, "prepare"):
        prepare(config)


def prepare(config: Config, workers: Workers | None = None) -> Manifest:
    """Prepare the corpus with `workers`, by default with those of a Ray that starts if there is work; see `run`.

    Return the manifest.
    """
    output = Location.of(config.output)
    folder = output / "features"
    reach.check_writable(config.output)  # before a long scan, or the composing of a corpus
    ledger = Ledger(folder, Recipe.of(config))
    started = time.monotonic()
    if config.corpus == CorpusSettings():
        cli.console().print(
            "prepare: the default corpus is composed music; name yours with corpus.kind and corpus.root"
        )
    cli.console().print(f"prepare: scanning corpus {config.corpus.kind} {config.corpus.root}".rstrip())
    scanned = scan(config.corpus, cli.console().print, output / "scan")
    number = ledger.next_run()
    with workers or Workers(config.cluster, config.output) as workers:
        # the list of pending tracks has no name here, so that its memory is free before the tables are written
        _decode(
            _find_pending(scanned, config.prepare, ledger, number, workers), config.prepare, ledger, number, workers
        )
    manifest = finish(ledger, scanned, config.corpus, cli.command_line())
    _report(manifest.counts, folder, time.monotonic() - started)
    _report_splits(folder, config.corpus, drawn=manifest.split == "random")
    _check_rejects(manifest.counts, config.prepare, folder)
    return manifest


def _find_pending(
    scanned: pa.Table, settings: PrepareSettings, ledger: Ledger, number: int, workers: Workers
) -> pa.Table:
    """Return the tracks that must be decoded. Files whose time alone changed are read and compared."""
    done = ledger.reusable_outcomes()
    check_present(scanned, done, ledger.folder)
    touched = select_for_comparison(scanned, done, settings.verify_content)
    if len(touched):
        unchanged = _select_unchanged(touched, settings.tracks_per_block, workers)
        done = ledger.apply_comparison(done, touched, unchanged, number)
    pending = select_pending(scanned, done)
    kept = len(scanned) - len(pending)
    obsolete = f"; {len(done) - kept} prepared earlier are deleted or changed" if len(done) > kept else ""
    cli.console().print(
        f"prepare: {plural(len(scanned), 'track')}, {kept} already done, {len(pending)} to do{obsolete}"
    )
    return pending


def _select_unchanged(touched: pa.Table, tracks_per_block: int, workers: Workers) -> pa.Table:
    """Return the tracks whose content is still the one that was prepared."""
    cli.console().print(f"prepare: comparing the content of {plural(len(touched), 'file')} with what was prepared")
    unchanged = workers.map(select_unchanged, touched, tracks_per_block)
    return pa.concat_tables([touched.schema.empty_table(), *unchanged])


def _decode(pending: pa.Table, settings: PrepareSettings, ledger: Ledger, number: int, workers: Workers) -> None:
    if not len(pending):
        return
    ledger.claim()
    work = functools.partial(prepare_and_count, recipe=ledger.recipe, folder=ledger.folder, run=number)
    with TrackProgress("prepare", total=len(pending)) as progress:
        for outcomes in workers.map(work, pending, settings.tracks_per_block, columns=["reason"]):
            progress.advance(len(outcomes), rejected=len(outcomes) - outcomes["reason"].null_count)


def _report(counts: Counts, folder: Location, seconds: float) -> None:
    console = cli.console()
    console.print(
        f"prepare: {plural(counts.tracks, 'track')} with {plural(counts.clips, 'clip')}, {counts.rejected} rejected, "
        f"in {duration(seconds)} -> {folder}"
    )
    for reason, number in counts.reasons.items():
        console.print(f"  {number:>6} {reason}")
    if counts.unlabelled:
        console.print(f"prepare: {plural(counts.unlabelled, 'track')} without a genre, which training leaves out")
    if counts.duplicates.sets:
        _report_copies(counts.duplicates, folder / "duplicates.parquet")


def _report_copies(copies: DuplicateCounts, file: Location) -> None:
    parts = []
    if copies.copies:
        parts.append(f"{plural(copies.copies, 'track')} with the audio of another")
    if copies.near:
        parts.append(f"{plural(copies.near, 'track')} with the recording of another in another form")
    if copies.excluded:
        parts.append(f"{copies.excluded} of them left out, because the published split puts them in two splits")
    if copies.of_several_genres:
        parts.append(f"{plural(copies.of_several_genres, 'set')} of copies with different genres")
    cli.console().print(f"prepare: {'; '.join(parts)}; see {file}")
    for line in duplicates.describe(file.read_table()):
        cli.console().print(f"  {line}")


def _report_splits(folder: Location, corpus: CorpusSettings, *, drawn: bool) -> None:
    tracks = (folder / "tracks.parquet").read_table(columns=["genre", "group", "split"])
    for line in balance.describe(tracks, corpus, drawn=drawn):
        cli.console().print(f"prepare: {line}")


def _check_rejects(counts: Counts, settings: PrepareSettings, folder: Location) -> None:
    limit = settings.max_reject_fraction
    if counts.rejected / max(1, counts.scanned) > limit:
        raise GenreError(
            f"{counts.rejected} of {plural(counts.scanned, 'track')} were rejected, more than "
            f"prepare.max_reject_fraction={limit:g} allows; see {folder / 'rejects.csv'}, or raise the limit"
        )


if __name__ == "__main__":
    sys.exit(cli.main("prepare"))
