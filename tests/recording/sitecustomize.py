"""Record which settings a job reads, in its driver and in all its workers. Put this folder on PYTHONPATH.

Each process appends the dotted keys to the file that RECORD_SETTINGS names. Only the configuration that a job is called
with counts, with its sections and copies, wherever they travel: it carries a mark. What the command line reads of it
before the job starts does not count, and neither do the settings that a saved model brings.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from genre import config
from genre.config import Config, Settings
from ray_jobs.engine import jobs

_MARK = "recorded"  # in the set of fields that were given, which goes along with copies and pickles
_SECTIONS = {type(field.default): f"{name}." for name, field in Config.model_fields.items()} | {Config: ""}
_noted: set[str] = set()
_dumped: list[bool] = []  # not empty once this process made plain values of the job's configuration
_plain_dump, _plain_load, _plain_validate = Settings.model_dump, jobs.load, config.validate


def _mark(settings: Settings) -> Settings:
    marked = settings.model_copy()
    marked.__pydantic_fields_set__.add(_MARK)
    return marked


def _note(settings: Settings, name: str) -> None:
    key = _SECTIONS[type(settings)] + name
    if key not in _noted:
        _noted.add(key)
        with open(os.environ["RECORD_SETTINGS"], "a", encoding="utf-8") as file:
            file.write(key + "\n")


def _is_marked(settings: Settings) -> bool:
    return type(settings) in _SECTIONS and _MARK in settings.__pydantic_fields_set__


def _get(self: Settings, name: str) -> Any:
    found = object.__getattribute__(self, name)
    if not name.startswith("_") and name in type(self).model_fields and _is_marked(self):
        if isinstance(found, Settings):
            return _mark(found)
        _note(self, name)
    return found


def _dump(self: Settings, **options: Any) -> dict[str, Any]:
    if _is_marked(self) and type(self) is Config:
        _dumped.append(True)
    elif _is_marked(self):
        for name in set(type(self).model_fields) - set(options.get("exclude") or ()):
            _note(self, name)
    return _plain_dump(self, **options)


def _validate(cls: type[Settings], *arguments: Any) -> Settings:
    """The search makes the configurations of its trials from a dump of the job's."""
    found = _plain_validate(cls, *arguments)
    return _mark(found) if cls is Config and _dumped else found


def _load(name: str) -> Callable[[Config], None]:
    run = _plain_load(name)

    return lambda settings: run(_mark(settings))


Settings.__getattribute__ = _get  # type: ignore[method-assign,assignment]
Settings.model_dump = _dump  # type: ignore[method-assign,assignment]
config.validate = _validate  # type: ignore[assignment]
jobs.load = _load
