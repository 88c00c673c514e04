"""Files whose names begin with their genre: `root/rock-01.wav`, `root/any/folder/jazz-first_take.flac`."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from genre.corpora import Track, open_folder, walk
from genre.errors import ConfigError
from genre.settings import CorpusSettings, Settings


class Params(Settings):
    """The corpus's own settings: corpus.params.separator=_."""

    separator: str = Field("-", min_length=1, description="what separates the genre from the rest of the file name")


def scan(settings: CorpusSettings, params: Params) -> Iterator[Track]:
    """Yield every audio file below `settings.root`. Raises `ConfigError` for a name without the separator."""
    for audio in walk(open_folder(settings.root)):
        genre, separator, _ = audio.relative.rpartition("/")[2].partition(params.separator)
        if not separator:
            raise ConfigError(
                f"{audio.path}: no {params.separator!r} in the name; expected GENRE{params.separator}NAME"
            )
        yield Track(audio.relative, audio.path, genre, audio.size, audio.modified)
