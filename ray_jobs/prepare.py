"""Turn a corpus into log-mel features: scan, decode, spectrogram, Parquet, in parallel on all workers.

Write OUTPUT/features. After an interruption, or with new files, the same command processes only what is missing.
OUTPUT/scan keeps what the scan read of files, such as their tags; it may be deleted.
"""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from genre import memory
from genre.corpora import MISSING
from genre.errors import GenreError, Reason, StorageError
from genre.features.manifest import FILE, Counts, DuplicateCounts, Manifest, read
from genre.features.preparing import duplicates
from genre.features.preparing.finishing import finish
from genre.features.preparing.ledger import Ledger, select_for_comparison, select_pending, with_earlier_times
from genre.features.preparing.scan import check_present, scan
from genre.features.preparing.tracks import compare
from genre.features.recipe import Recipe
from genre.features.splitting import balance
from genre.settings import Config, CorpusSettings, PrepareSettings
from genre.storage import Location, lease
from genre.wording import duration, plural
from ray_jobs.engine import cli, reach
from ray_jobs.engine.blocks import Workers
from ray_jobs.engine.metrics import prepare_and_count
from ray_jobs.engine.progress import TrackProgress

_GRANT = "give read access, for encrypted objects of S3 also kms:Decrypt,"


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
        cli.say("prepare: the default corpus is composed music; name yours with corpus.kind and corpus.root")
    cli.say(f"prepare: scanning corpus {config.corpus.kind} {config.corpus.root}".rstrip())
    scanned = scan(config.corpus, cli.say, output / "scan", output / "tags" / "written.csv")
    number, earlier = ledger.next_run(), _Labels.of(folder)
    with workers or Workers(config.cluster, config.output) as workers:
        # lists of outcomes and of pending tracks have no names here: their memory is free before tables are written
        scanned, kept = _read(scanned, config.prepare, ledger, number, workers)
    manifest = finish(ledger, scanned, config.corpus, cli.command_line())
    _report(manifest.counts, folder, time.monotonic() - started)
    _report_lost_labels(earlier, _Labels.of(folder))
    _report_splits(folder, config.corpus, drawn=manifest.split == "random")
    _report_denied(manifest.counts.reasons.get(Reason.DENIED, 0), kept)
    _check_rejects(manifest.counts, config.prepare, folder)
    return manifest


def _read(
    scanned: pa.Table, settings: PrepareSettings, ledger: Ledger, number: int, workers: Workers
) -> tuple[pa.Table, int]:
    """Compare the files whose time alone changed, and decode what is new.

    Return the scan, with the earlier times of the files that were prepared, may have changed and are denied, and the
    number of these. Their clips are kept. Raises `StorageError` when nothing was prepared yet and all files are denied.
    """
    done = ledger.reusable_outcomes()
    check_present(scanned, done, ledger.folder)
    compared = select_for_comparison(scanned, done, settings.verify_content)
    kept = compared.slice(0, 0)
    if len(compared):
        compared = _compare(compared, settings.tracks_per_block, workers)
        kept = compared.filter(pc.is_null(compared["is_unchanged"]))
        scanned = with_earlier_times(scanned, kept, done)
        answered = compared.filter(pc.is_valid(compared["is_unchanged"]))
        done = ledger.apply_comparison(done, answered, answered.filter(answered["is_unchanged"]), number)
    pending = select_pending(scanned, done)
    unread = len(scanned) - len(pending)
    obsolete = f"; {len(done) - unread} prepared earlier are deleted or changed" if len(done) > unread else ""
    cli.say(f"prepare: {plural(len(scanned), 'track')}, {unread} already done, {len(pending)} to do{obsolete}")
    del done
    denied = _decode(pending, settings, ledger, number, workers)
    if len(denied) and not unread and len(denied) == pc.sum(pc.not_equal(pending["size"], MISSING)).as_py():
        raise StorageError(
            f"every file is denied ({len(denied)}, such as {denied['path'][0].as_py()}); {_GRANT} and run the same "
            "command again"
        )
    return scanned, len(kept)


def _compare(tracks: pa.Table, tracks_per_block: int, workers: Workers) -> pa.Table:
    cli.say(f"prepare: comparing the content of {plural(len(tracks), 'file')} with what was prepared")
    return pa.concat_tables(workers.map(compare, tracks, tracks_per_block))


def _decode(pending: pa.Table, settings: PrepareSettings, ledger: Ledger, number: int, workers: Workers) -> pa.Table:
    """Decode the pending tracks. Return those that are denied."""
    denied = [pending.slice(0, 0).select(["path"])]
    if not len(pending):
        return denied[0]
    ledger.claim()
    work = functools.partial(prepare_and_count, recipe=ledger.recipe, folder=ledger.folder, run=number)
    with TrackProgress("prepare", total=len(pending)) as progress:
        for outcomes in workers.map(work, pending, settings.tracks_per_block, columns=["path", "reason"]):
            progress.advance(len(outcomes), rejected=len(outcomes) - outcomes["reason"].null_count)
            denied.append(outcomes.filter(pc.equal(outcomes["reason"], Reason.DENIED.value)).select(["path"]))
    return pa.concat_tables(denied)


def _report_denied(rejected: int, kept: int) -> None:
    parts = []
    if rejected:
        parts.append(f"{plural(rejected, 'file')} {'is' if rejected == 1 else 'are'} denied")
    if kept:
        parts.append(f"{plural(kept, 'file')} could not be compared, and the clips of an earlier run are kept")
    if parts:
        cli.say(f"prepare: {'; '.join(parts)}; {_GRANT} and run the same command again, which reads them")


def _report(counts: Counts, folder: Location, seconds: float) -> None:
    cli.say(
        f"prepare: {plural(counts.tracks, 'track')} with {plural(counts.clips, 'clip')}, {counts.rejected} rejected, "
        f"in {duration(seconds)} -> {folder}"
    )
    for reason, number in counts.reasons.items():
        cli.say(f"  {number:>6} {reason}")
    if counts.rejected:
        cli.say(f"prepare: each rejected file is in {folder / 'rejects.csv'}")
    if counts.unlabelled:
        cli.say(f"prepare: {plural(counts.unlabelled, 'track')} without a genre, which training leaves out")
    if counts.duplicates.sets:
        _report_copies(counts.duplicates, folder / "duplicates.parquet")


@dataclass(frozen=True)
class _Labels:
    """Where the genres of a features folder come from, and how many of its tracks have one."""

    kind: str = ""
    corrections: str = ""
    tracks: int = 0

    @classmethod
    def of(cls, folder: Location) -> _Labels:
        if not (folder / FILE).exists():
            return cls()
        made = Manifest.from_json(read(folder))
        kind, corrections = (str(made.corpus.get(name, "")) for name in ("kind", "corrections"))
        return cls(kind, corrections, made.counts.tracks - made.counts.unlabelled)


def _report_lost_labels(earlier: _Labels, now: _Labels) -> None:
    """Say where corrections were left out, or another kind of corpus knows fewer genres of the same music."""
    if earlier.corrections and not now.corrections:
        cli.say(
            f"prepare: the genres of corpus.corrections={earlier.corrections}, which the last run had, are no longer "
            "used; name the file again to use them"
        )
    elif earlier.kind != now.kind and now.tracks < earlier.tracks:
        cli.say(
            f"prepare: {plural(now.tracks, 'track')} with a genre, where corpus.kind={earlier.kind} had "
            f"{earlier.tracks}; the same prepare command as before brings them back"
        )


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
    cli.say(f"prepare: {'; '.join(parts)}; see {file}")
    for line in duplicates.describe(file.read_table()):
        cli.say(f"  {line}")


def _report_splits(folder: Location, corpus: CorpusSettings, *, drawn: bool) -> None:
    tracks = (folder / "tracks.parquet").read_table(columns=["genre", "group", "split"])
    for line in balance.describe(tracks, corpus, drawn=drawn):
        cli.say(f"prepare: {line}")


def _check_rejects(counts: Counts, settings: PrepareSettings, folder: Location) -> None:
    limit = settings.max_reject_fraction
    if counts.rejected / max(1, counts.scanned) > limit:
        raise GenreError(
            f"{counts.rejected} of {plural(counts.scanned, 'track')} were rejected, more than "
            f"prepare.max_reject_fraction={limit:g} allows; see {folder / 'rejects.csv'}, or raise the limit"
        )


if __name__ == "__main__":
    sys.exit(cli.main("prepare"))
