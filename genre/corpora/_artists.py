"""Names of artists in a form in which they can be compared: a group is an artist, however the name is spelled."""

from __future__ import annotations

import re

from genre.audio.tags import FileTags
from genre.corpora._genre_names import fold

_FEATURED = re.compile(r"(\s+|\s*[(\[]\s*)(feat|ft|featuring)\b.*", re.IGNORECASE)
_ARTICLE = re.compile(r"^the\s+|,\s*the$", re.IGNORECASE)
_NOBODY = frozenset(
    ("va", "various", "variousartists", "variousartist", "unknown", "unknownartist", "artist", "noartist", "none",
     "verschiedene", "verschiedeneinterpreten", "diverse", "artistesvarios", "variosartistas", "varios",
     "artistesdivers", "artistivari", "soundtrack", "ost", "sampler", "compilation", "разныеисполнители")
)  # fmt: skip
# CD1, Disc 2, Vol. 3; A, 0-9, A-C
_SHELF = re.compile(r"((cd|dis[ck]|vol(ume)?)\W*\d+|[a-z0-9#]|[a-z0-9]\s*-\s*[a-z0-9])", re.IGNORECASE)


def artist_key(name: str | None) -> str | None:
    """Return an artist's name without featured artists, case, accents, punctuation and article; None for no artist.

    "Various Artists" and the like are no artist.
    """
    folded = fold(_ARTICLE.sub("", _FEATURED.sub("", name or "").strip()))
    return folded if folded and folded not in _NOBODY else None


def artist_of_folder(name: str) -> str | None:
    """Return the `artist_key` of a folder, None also for the part of an album ("CD1") and for a shelf ("A-C")."""
    return None if _SHELF.fullmatch(name.strip()) else artist_key(name)


def group_of(tags: FileTags) -> str | None:
    """Return the artist, or without one the album, in the form in which names are compared; None without either."""
    for artist in (tags.album_artist, tags.artist):
        if key := artist_key(artist.partition(";")[0]):
            return key
    album = fold(tags.album)
    return f"album {album}" if album else None
