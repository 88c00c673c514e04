"""Parse the values of settings by the type of the setting, and suggest keys for mistyped ones.

A text setting takes its value as it is typed (`output=0123`); others are read as YAML (`train.epochs=12`).
"""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from genre.errors import one_line

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
# an element of a list of texts: quoted as in JSON, or all up to the next comma
_ELEMENT = re.compile(rf"\s*({_QUOTED.pattern}|[^,]*?)\s*,", re.DOTALL)


def annotation(schema: type[BaseModel], keys: Sequence[str]) -> Any:
    """Return the type of the field at these keys below `schema`; `Any` where the schema does not say."""
    field = schema.model_fields.get(keys[0])
    if field is None:
        return Any
    below = section(schema, keys[0])
    if len(keys) > 1:
        return annotation(below, keys[1:]) if below else Any
    return field.annotation


def section(schema: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the schema of the section `name`, None where `name` is a single setting."""
    kind = schema.model_fields[name].annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def value(text: str, kind: Any) -> Any:
    """Return what `text` means for a field of type `kind`: itself for texts, else YAML.

    A list of texts is `[a, b]`; an element with a comma is quoted as in JSON. Raises `ValueError`.
    """
    if _is_text(kind):
        return text
    if get_origin(kind) is list and _is_text(get_args(kind)[0]) and re.fullmatch(r"\s*\[.*\]\s*", text, re.DOTALL):
        return _elements(text.strip()[1:-1])
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else ()
    if type(None) in options and any(_is_text(option) for option in options):
        return None if text in ("null", "~") else text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(one_line(error)) from None


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a suggestion for an unknown word: the closest known one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def nearest_key(schema: type[BaseModel], keys: Sequence[str], prefix: str) -> str:
    """Return a suggestion for an unknown key of `schema`: the closest key, and keys of other sections with its name."""
    closest = _closest(schema, keys)
    alike = [".".join(path) for path in _paths(schema) if path[-1] == keys[-1]]
    suggestions = list(dict.fromkeys(([".".join(closest[1])] if closest else []) + alike))[:3]
    if not suggestions:
        close = difflib.get_close_matches(keys[-1], [path[-1] for path in _paths(schema)], n=1)
        suggestions = [".".join(path) for path in _paths(schema) if path[-1] in close][:3]
    if suggestions:
        return f"did you mean {' or '.join(repr(prefix + name) for name in suggestions)}?"
    known = [prefix + ".".join(path) for path in _paths(schema)]
    return f"known: {', '.join(known)}" if len(known) <= 12 else "--help-all lists all keys"


def _closest(schema: type[BaseModel], keys: Sequence[str]) -> tuple[float, list[str]] | None:
    """Return the similarity and the path of the known key that is closest to an unknown one, level by level."""
    best: tuple[float, list[str]] | None = None
    for name in schema.model_fields:
        score = _similarity(keys[0], name)
        if score < 0.6:
            continue
        path, below = [name, *keys[1:]], section(schema, name)
        if below and keys[1:]:
            rest = _closest(below, keys[1:])
            if rest is None:
                continue
            score, path = score + rest[0], [name, *rest[1]]
        elif below and score < 0.75:
            continue  # a section has no value: the name of a setting is more likely
        elif keys[1:] and get_origin(schema.model_fields[name].annotation) is not dict:
            continue  # a single value has no keys below
        if best is None or score > best[0]:
            best = score, path
    return best


def _similarity(word: str, known: str) -> float:
    """Return the similarity of two names, 0 to 1; a part of a known name counts as close (0.6)."""
    ratio = difflib.SequenceMatcher(None, word, known).ratio()
    return max(ratio, 0.6) if len(word) > 2 and word in known else ratio


def _paths(schema: type[BaseModel]) -> Iterable[list[str]]:
    for name in schema.model_fields:
        below = section(schema, name)
        if below:
            yield from ([name, *path] for path in _paths(below))
        else:
            yield [name]


def _is_text(kind: Any) -> bool:
    return kind is str or (get_origin(kind) is Literal and all(isinstance(choice, str) for choice in get_args(kind)))


def _elements(text: str) -> list[str]:
    elements = (match[1] for match in _ELEMENT.finditer(f"{text},"))
    return [json.loads(element) if _QUOTED.fullmatch(element) else element for element in elements if element]
