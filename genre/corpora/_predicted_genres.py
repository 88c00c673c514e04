"""Genres that `tag` wrote into files: predictions, which a model must not take for labels.

OUTPUT/tags/written.csv of `tag` says which they are. A genre that a person wrote since is a label again, and so is any
genre of a file that `tag undo=` restored.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from genre.errors import ArtifactError, first_line, one_line
from genre.storage import Location
from genre.wording import plural

_LONGEST_ROW = 1 << 26  # bytes
_UNDONE = ("restored", "unchanged")  # actions in undone.csv


class PredictedGenres:
    """Finds the genres that `tag` wrote, and counts them."""

    def __init__(self, written: Location | None) -> None:
        """Read the table `written`, if it exists. Raises `ArtifactError` when it is damaged."""
        self._written = _written_genres(written) if written and written.exists() else {}
        self.count = 0  # of the files that have such a genre

    def without(self, path: str, genres: tuple[str, ...]) -> tuple[str, ...]:
        """Return the genres of the file at `path`; none where they are those that were written into it."""
        if genres not in self._written.get(path, ()):
            return genres
        self.count += 1
        return ()

    def line(self) -> str:
        """Return a line that says how many there are."""
        were, are = ("was", "is") if self.count == 1 else ("were", "are")
        return (
            f"prepare: {plural(self.count, 'genre')} {were} written by tag and {are} not learned; to learn those that "
            "are right, accept them in review and set corpus.corrections"
        )


def _written_genres(file: Location) -> dict[str, list[tuple[str, ...]]]:
    """Return, by file, each list of genres that was written into it, or may have been by a job that was killed.

    The column `undo` has the earlier ones as well, such as those of a file that could not be written the last time.
    """
    rows = _read(file, ("path", "field", "undo"))
    rows = rows.filter(pc.and_(pc.equal(rows["field"], "genre"), pc.is_valid(rows["undo"])))
    undone = file.parent / "undone.csv"
    if undone.exists() and _time(undone) > _time(file):
        restored = _read(undone, ("path", "field", "action"))
        is_restored = pc.and_(pc.equal(restored["field"], "genre"), pc.is_in(restored["action"], pa.array(_UNDONE)))
        paths = restored.filter(is_restored)["path"].combine_chunks()
        rows = rows.filter(pc.invert(pc.is_in(rows["path"], value_set=paths)))
    try:
        return {
            path: [tuple(" ".join(text.split()) for text in values) for values in json.loads(undo)["ours"]]
            for path, undo in zip(rows["path"].to_pylist(), rows["undo"].to_pylist(), strict=True)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(file, "the column undo was altered") from None


def _read(file: Location, columns: tuple[str, ...]) -> pa.Table:
    """Return columns of a table of `tag`, all of them texts."""
    try:
        return pyarrow.csv.read_csv(
            pa.BufferReader(file.read_bytes()),
            pyarrow.csv.ReadOptions(block_size=_LONGEST_ROW),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                include_columns=list(columns),
            ),
        )
    except OSError as error:
        raise _damaged(file, one_line(error)) from None
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise _damaged(file, first_line(error)) from None


def _damaged(file: Location, problem: str) -> ArtifactError:
    return ArtifactError(
        f"{file}: cannot be read ({problem}), so that predictions in files cannot be told from labels; restore it, or "
        "choose another output to take all of them for labels"
    )


def _time(file: Location) -> int:
    """Return the time of modification in nanoseconds."""
    return int(file.filesystem.get_file_info(file.path).mtime_ns)
