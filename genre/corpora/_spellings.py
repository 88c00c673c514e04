"""How often texts are written, which spelling of a genre is its name, and which genre may be another one misspelt."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from genre.corpora._genre_names import LONGEST
from genre.wording import listed

_SHOWN = 6  # spellings
_ALIKE = 0.8  # `difflib` ratio from which a genre may be another one misspelt: "Raggae" and "Reggae" have 0.83


def most_common(spellings: Counter[str]) -> str:
    """Return the most frequent spelling, of several one like "Hip-Hop"."""
    return min(spellings, key=lambda text: (-spellings[text], text != text.title(), text))


def by_count(counts: Counter[str]) -> list[tuple[str, int]]:
    """Return (text, count), the most frequent first, equally frequent ones by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def counted(texts: Counter[str]) -> str:
    """Return "Hip-Hop (26), hip hop (4)", shortened."""
    return listed((f"{short(text)} ({count})" for text, count in by_count(texts)), _SHOWN)


def written(spellings: Counter[str], name: str) -> str:
    """Return "; written Hip-Hop (26), hip hop (4)", or nothing where `name` is the only spelling."""
    return "" if set(spellings) == {name} else "; written " + counted(spellings)


def misspelt(rare: Iterable[str], common: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the key of each rare genre whose spelling is close to a common one, with the key of the common one."""
    for key in rare:
        yield from ((key, near) for near in difflib.get_close_matches(key, common, n=1, cutoff=_ALIKE))


def short(text: str) -> str:
    """Return `text`, shortened if it is long."""
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
