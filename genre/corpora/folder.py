"""Your own music: a folder per genre, with any folders below it.

    root/<genre>/.../<file>            genre: the first folder below the root
    root/<genre>/<group>/.../<file>    group: the first folder below the genre that may be an artist or an album

All tracks of a group are in the same split. The group is the name of the folder alone, so an artist in the folders of
two genres is one group: the same voice in two splits is leakage, whatever the genre. Names are compared without case,
accents, punctuation and featured artists. "CD1", "A-C" and "Various Artists" are not artists; the next folder below
is used. `params.group_pattern` reads the group from the path instead, unchanged; a file that it does not match has no
group.

`track_id` is the path below the root with its extension. It does not change when the root moves, and `a.wav` and
`a.mp3` are two tracks. Genre and group are in Unicode's composed form (NFC): macOS stores names decomposed, and the
same name must be the same class on every system. There is no published split.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from pydantic import Field, field_validator

from genre.corpora import Track, open_folder, walk
from genre.corpora._artists import artist_of_folder
from genre.errors import ConfigError
from genre.settings import CorpusSettings, Settings


class Params(Settings):
    """The folder's own settings."""

    group_pattern: str = Field(
        "", description="regular expression with a part (?P<group>...), searched in the path below the root"
    )
    ignore_loose: bool = Field(False, description="skip files in the root itself, which are in no genre's folder")

    @field_validator("group_pattern")
    @classmethod
    def _has_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ConfigError(
                f"corpus.params.group_pattern={pattern!r} is not a regular expression ({error}); correct it"
            ) from None
        if pattern and "group" not in groups:
            raise ConfigError(
                f"corpus.params.group_pattern={pattern!r} has no group 'group'; write (?P<group>...) around it"
            )
        return pattern


def scan(settings: CorpusSettings, params: Params) -> Iterator[Track]:
    """Yield every audio file below a genre's folder, in the order of `walk`.

    Raises `ConfigError` as `walk` does, for a file in no genre's folder (unless `ignore_loose`), for `split=official`,
    and at the end when there was no track or the pattern matched no path.
    """
    if settings.split == "official":
        raise ConfigError("corpus.split=official: a folder has no published split; use random or auto")
    root = open_folder(settings.root)
    pattern = re.compile(params.group_pattern) if params.group_pattern else None
    tracks = grouped = 0
    for audio in walk(root):
        genre, slash, rest = audio.relative.partition("/")
        if not slash:
            if params.ignore_loose:
                continue
            raise ConfigError(
                f"corpus.root={settings.root}: {audio.relative!r} is in no genre's folder; expected "
                "root/<genre>/<file>, or corpus.params.ignore_loose=true to skip such files"
            )
        group = _group(audio.relative, rest, pattern)
        tracks += 1
        grouped += group is not None
        yield Track(audio.relative, audio.path, _composed(genre), audio.size, audio.modified, group)
    if not tracks:
        raise ConfigError(f"corpus.root={root} holds no audio file in a genre's folder; expected root/<genre>/<file>")
    if pattern and not grouped:
        raise ConfigError(
            f"corpus.params.group_pattern={params.group_pattern!r} matched none of {tracks} paths; "
            f"the last was {audio.relative!r}"
        )


def _group(path: str, below_genre: str, pattern: re.Pattern[str] | None) -> str | None:
    """Return the group of a track, None where it has none."""
    if pattern:
        match = pattern.search(path)
        name = match["group"] if match else None
        return _composed(name) if name else None
    folders = below_genre.split("/")[:-1]
    return next((artist for folder in folders if (artist := artist_of_folder(folder))), None)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
