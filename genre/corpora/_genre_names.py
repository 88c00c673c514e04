"""Map the genre texts of tags to genres, and fold names so that different spellings compare equal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from genre.config import validate
from genre.corpora._walk import open_root
from genre.errors import ConfigError, one_line
from genre.settings import Settings

SHIPPED = Path(__file__).with_name("_genres.yaml")
LONGEST = 60  # characters of a genre; what is longer is a sentence
_LONGEST_LIST = 1000  # characters of a text with several genres
_SEPARATOR = re.compile(r"[;,/|\\]+")
_ACCENTS = re.compile("[\u0300-\u036f]+")


class _File(Settings):
    """A file of mappings."""

    aliases: dict[str, list[str]] = Field({}, description="other spellings of a genre")
    parents: dict[str, str] = Field({}, description="the genre that a genre counts as")
    ignore: list[str] = Field([], description="texts that are no genre")


class GenreNames:
    """Resolves texts to genres. The key of a genre is its name after `fold`.

    `problems` has a line for each contradiction in the file of mappings.
    """

    def __init__(self, address: str = "") -> None:
        """Read a file of mappings, by default the one that ships. Raises `ConfigError` when it cannot be used."""
        content = _read(address)
        self.problems: list[str] = []
        self._ignored = {fold(text) for text in content.ignore}
        self._names: dict[str, str] = {}  # the name of each genre in the file, by its folded form
        self._aliases: dict[str, str] = {}  # from the folded form of a spelling to that of its genre
        for name, spellings in content.aliases.items():
            for spelling in (name, *spellings):
                self._add_alias(spelling, name)
        for name in (*content.parents, *content.parents.values()):
            self._names.setdefault(self._key(name), name)
        self._parents = {self._key(name): self._key(parent) for name, parent in content.parents.items()}
        self._roots = {key: self._root(key) for key in self._parents}

    def resolve(self, text: str) -> list[str]:
        """Return the keys of the genres that a text names, in its order, each once; empty where it names none."""
        keys = [self._genre_key(part) for part in self.split(text)]
        return list(dict.fromkeys(key for key in keys if key))

    def split(self, text: str) -> list[str]:
        """Return the genres in a text, as written: a text that no mapping has and that holds separators is a list."""
        if len(text) > _LONGEST_LIST:
            return []
        parts = [text] if self._is_known(text) else _SEPARATOR.split(text)
        return [part.strip() for part in parts if 0 < len(part.strip()) <= LONGEST]

    def name(self, key: str) -> str | None:
        """Return the name of a genre as the file of mappings writes it; None for another genre."""
        return self._names.get(key)

    def _is_known(self, text: str) -> bool:
        key = fold(text)
        return key in self._aliases or key in self._parents or key in self._ignored

    def _genre_key(self, text: str) -> str:
        """Return the key of the genre that a text counts as; empty where it names none."""
        key = fold(text)
        if key in self._ignored or not any(letter.isalnum() for letter in key):
            return ""
        key = self._aliases.get(key, key)
        return self._roots.get(key, key)

    def _key(self, name: str) -> str:
        return self._aliases.get(fold(name), fold(name))

    def _add_alias(self, spelling: str, name: str) -> None:
        key, genre = fold(spelling), fold(name)
        other = self._aliases.setdefault(key, genre)
        if other != genre:
            self.problems.append(
                f"{spelling!r} is an alias of {self._names[other]!r} and of {name!r}; the first counts"
            )
        self._names.setdefault(genre, name)

    def _root(self, key: str) -> str:
        """Return the highest parent; where parents form a circle, the first that repeats."""
        path = [key]
        while (parent := self._parents.get(path[-1])) is not None:
            if parent in path:
                if parent == key and key == min(path):  # once for each circle
                    names = " > ".join(self._names[each] for each in (*path, key))
                    self.problems.append(f"parents in a circle: {names}; each stays a genre of its own")
                return parent
            path.append(parent)
        return path[-1]


def fold(name: str) -> str:
    """Return a form of a name that is equal for its spellings.

    Case, accents of Latin, Greek and Cyrillic letters, spaces and punctuation do not count. A name of punctuation alone
    keeps it. `fold(fold(name)) == fold(name)`.
    """
    while (folded := _folded_once(name)) != name:
        name = folded
    return name


def _folded_once(name: str) -> str:
    plain = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", name))).casefold()
    letters = "".join(_kept(plain.replace("&", "and")))
    return letters or "".join(plain.split())


def _kept(text: str) -> Iterator[str]:
    """Yield letters, digits and the marks that belong to them."""
    return (letter for letter in text if unicodedata.category(letter)[0] in "LNM")


def _read(address: str) -> _File:
    setting = f"corpus.params.genres={address}"
    try:
        text = open_root(address, "corpus.params.genres").read_bytes() if address else SHIPPED.read_bytes()
        content: Any = yaml.safe_load(text)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{setting} cannot be read ({one_line(error)}); write a YAML file like {SHIPPED}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{setting} holds no aliases, parents or ignore; write a YAML file like {SHIPPED}")
    return validate(_File, content, f"{setting}: ")
