"""What the tag job prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genre.model import thresholds
from genre.model.calibration import UNKNOWN, Calibration
from genre.model.saved_model import SavedEnsemble
from genre.storage import Location
from genre.tagging.file_tags import Action
from genre.wording import clock, plural
from ray_jobs.engine import cli

_BAR_WIDTH = 40
_MOST_LINES = 24  # of a timeline on the screen


def show_song(row: dict[str, Any], ensemble: SavedEnsemble) -> None:
    """Print a bar for each genre of a row of the tag table, then the genre over time, on standard output."""
    if row["reason"]:
        return
    console = Console(highlight=False)
    ranked = sorted(zip(row["probabilities"], ensemble.classes, strict=True), reverse=True)
    genre = ranked[0][1]
    if ensemble.calibration.reported(np.array(row["probabilities"])) < 0:
        genre = f"{UNKNOWN} (most likely {genre})"
    # names of songs may contain rich's markup
    console.print(Text.assemble(f"{row['path']}: ", (genre, "bold"), f", {clock(row['seconds'])}"), soft_wrap=True)
    grid = Table.grid(padding=(0, 2))
    for probability, name in ranked:
        grid.add_row(f"  {name}", Bar(1.0, 0, probability, width=_BAR_WIDTH), f"{probability:6.1%}")
    console.print(grid)
    for line in _timeline(row["timeline"], ensemble.classes):
        console.print(line)


def show_start(ensemble: SavedEnsemble, files: int, pending: int) -> None:
    names = " + ".join(ensemble.architectures)
    counts = f"{_files(files)}, {files - pending} already done, {pending} to do"
    _say(f"tag: {names}, {plural(len(ensemble.classes), 'genre')}; {counts}")
    _say(f"  {_threshold(ensemble.calibration)}")


def show_end(rows: pa.Table, music: float, seconds: float, folder: Location) -> None:
    """Print counts of the `rows` of `TagTable.finish`, speed (`music` seconds of sound in `seconds`), and genres."""
    failed, genres = _counts(rows["reason"]), _counts(rows["genre"])
    _say(f"tag: {_files(genres.total())} tagged, {failed.total()} not readable, in {seconds:.0f} s -> {folder}")
    if music:
        _say(f"  {music / 3600:.2f} hours of music, {music / max(seconds, 1e-9):.0f} times real time")
    for genre, number in genres.most_common():
        _say(f"  {number:>6} {genre}")
    for reason, number in failed.most_common():
        _say(f"  {number:>6} not readable: {reason}, see failures.csv")


def show_written(table: pa.Table, target: Location, unknown: int, labelled: pa.StringArray) -> None:
    """Print what was or would be written into how many files; `labelled` are the paths of files with labels."""
    changed = table.filter(pc.is_in(table["action"], pa.array([Action.WRITTEN.value, Action.WOULD_WRITE.value])))
    count = pc.sum(pc.is_in(changed["path"], value_set=labelled)).as_py()
    by_label = f", {plural(count, 'file')} by the label in OUTPUT/features" if count else ""
    done = _actions(table) or "none"
    _say(f"tag: genres in the files: {done}, {unknown} unchanged because unknown{by_label} -> {target}")


def show_undone(table: pa.Table, target: Location) -> None:
    _say(f"tag: taken back: {_actions(table) or 'nothing was written'} -> {target}")


def _actions(table: pa.Table) -> str:
    """Return such as "3 written, 1 failed"."""
    return ", ".join(f"{number} {action}" for action, number in _counts(table["action"]).most_common())


def _counts(column: pa.ChunkedArray) -> Counter[str]:
    """Return how often each value occurs, without nulls."""
    return Counter({each["values"]: each["counts"] for each in pc.value_counts(column.drop_null()).to_pylist()})


def _say(text: str) -> None:
    cli.say(text)


def _files(count: int) -> str:
    return plural(count, "file")


def _threshold(calibration: Calibration) -> str:
    """Return a sentence on how far the probabilities can be trusted, and which genres are reported as unknown."""
    if not calibration.tracks:
        return "not calibrated, since the model has no validation predictions; every file gets a genre"
    fitted = f"calibrated on {calibration.source} (temperature {calibration.temperature:.2f})"
    if not calibration.precision:
        return f"{fitted}; every file gets a genre (min_precision=0)"
    limit = thresholds.describe(calibration.thresholds)
    if not limit:
        proven = calibration.provable
        lower = f"min_precision={proven:g} names some" if proven else "no lower one is proven either"
        return (
            f"{fitted}; no threshold proves min_precision={calibration.precision:g} on them, so every file is "
            f"{UNKNOWN}: {lower}, min_precision=0 names all without a promise; a better model, or more held-out tracks "
            "(corpus.valid_fraction, tune.folds), prove more"
        )
    promise = f"{calibration.precision:.0%}"
    if not max(calibration.thresholds):
        return f"{fitted}; every file gets a genre, and at least {promise} of them are correct (90 % confidence)"
    never = sum(threshold > 1 for threshold in calibration.thresholds)
    rest = f"; {plural(never, 'genre')} never reported" if never else ""
    return (
        f"{fitted}; a probability below {limit} is reported as {UNKNOWN}, so that at least {promise} "
        f"of the genres of the other files are correct (90 % confidence){rest}"
    )


def _timeline(timeline: list[dict[str, Any]], classes: list[str]) -> Iterator[str]:
    """Yield a line for each stretch of clips with the same best genre, when there are several stretches."""
    named = [(classes[max(range(len(classes)), key=m["probabilities"].__getitem__)], m) for m in timeline]
    stretches = [(genre, [m for _, m in group]) for genre, group in groupby(named, key=lambda pair: pair[0])]
    if len(stretches) < 2:
        return
    for genre, moments in stretches[:_MOST_LINES]:
        yield f"  {clock(moments[0]['start']):>6} - {clock(moments[-1]['end']):>6}  {genre}"
    if len(stretches) > _MOST_LINES:
        yield f"  ... and {plural(len(stretches) - _MOST_LINES, 'more change')}"
