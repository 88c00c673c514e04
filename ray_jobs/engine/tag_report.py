"""What the tag job says to people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genre.model.calibration import UNKNOWN
from genre.storage import Location
from genre.tagging import collection
from genre.tagging.collection import Jury
from ray_jobs.engine import cli

WRITTEN_COLUMNS = ("path", "genre", "action", "before", "message")
_BAR_WIDTH = 40
_MOST_LINES = 24  # of a timeline on the screen


def show_song(row: dict[str, Any], jury: Jury) -> None:
    """A bar for each genre of a row of the ledger, then which genre it is when, on standard output."""
    if row["reason"]:
        return
    console = Console(highlight=False)
    ranked = sorted(zip(row["probabilities"], jury.classes, strict=True), reverse=True)
    best, genre = ranked[0]
    if not jury.calibration.believes(best):
        genre = f"{UNKNOWN} (most like {genre})"
    # names of songs may hold what means something in rich's markup
    console.print(Text.assemble(f"{row['path']}: ", (genre, "bold"), f", {clock(row['seconds'])}"), soft_wrap=True)
    grid = Table.grid(padding=(0, 2))
    for probability, name in ranked:
        grid.add_row(f"  {name}", Bar(1.0, 0, probability, width=_BAR_WIDTH), f"{probability:6.1%}")
    console.print(grid)
    for line in _timeline(row["timeline"], jury.classes):
        console.print(line)


def show_start(jury: Jury, files: int, todo: int) -> None:
    names = " + ".join(jury.architectures)
    _say(f"tag: {names}, {len(jury.classes)} genres; {files} files, {files - todo} already done, {todo} to do")
    _say(f"  {_belief(jury)}")


def show_end(rows: pa.Table, jury: Jury, music: float, seconds: float, folder: Location) -> None:
    """Counts, speed (`music` seconds of sound were tagged in `seconds`), and how often each genre was named."""
    good = rows.filter(pc.is_null(rows["reason"]))
    failed = Counter(rows.filter(pc.is_valid(rows["reason"]))["reason"].to_pylist())
    _say(f"tag: {len(good)} files tagged, {failed.total()} not readable, in {seconds:.0f} s -> {folder}")
    if music:
        _say(f"  {music / 3600:.2f} hours of music, {music / max(seconds, 1e-9):.0f} times real time")
    for genre, number in Counter(collection.tags_table(good, jury, 1)["genre"].to_pylist()).most_common():
        _say(f"  {number:>6} {genre}")
    for reason, number in failed.most_common():
        _say(f"  {number:>6} not readable: {reason}, see failures.csv")


def show_written(table: pa.Table, place: Location, unknown: int) -> None:
    counts = Counter(table["action"].to_pylist())
    parts = [f"{number} {action}" for action, number in counts.most_common()]
    _say(f"tag: genres in the files: {', '.join(parts) or 'none'}, {unknown} left alone as unknown -> {place}")


def _say(text: str) -> None:
    cli.console().print(text, markup=False)


def clock(seconds: float) -> str:
    """125.0 as 2:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _belief(jury: Jury) -> str:
    correct = jury.calibration
    if not correct.tracks:
        return "probabilities are not calibrated, every file gets a genre: the model has no validation answers"
    learned = f"calibrated on {correct.tracks} validation tracks (temperature {correct.temperature:.2f})"
    if not correct.precision:
        return f"{learned}; every file gets a genre (tag.precision=0)"
    if correct.threshold > 1:
        return f"{learned}; no level of confidence reached tag.precision={correct.precision:g}, so all is {UNKNOWN}"
    return (
        f"{learned}; below {correct.threshold:.2f} a genre is {UNKNOWN}: "
        f"there, {correct.precision:.0%} of the others were right"
    )


def _timeline(timeline: list[dict[str, Any]], classes: list[str]) -> Iterator[str]:
    """A line for each stretch of clips with the same best genre, when there are several."""
    named = [(classes[max(range(len(classes)), key=m["probabilities"].__getitem__)], m) for m in timeline]
    stretches = [(genre, [m for _, m in group]) for genre, group in groupby(named, key=lambda pair: pair[0])]
    if len(stretches) < 2:
        return
    for genre, moments in stretches[:_MOST_LINES]:
        yield f"  {clock(moments[0]['start']):>6} - {clock(moments[-1]['end']):>6}  {genre}"
    if len(stretches) > _MOST_LINES:
        yield f"  ... and {len(stretches) - _MOST_LINES} more changes"
