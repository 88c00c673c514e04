"""Record which settings a job reads, in its driver and in all its workers.

Put this folder on PYTHONPATH: Python imports `sitecustomize` when it starts. Each process appends the dotted keys that
it reads to the file named by RECORD_SETTINGS. Only the configuration that a job is called with counts, with its
sections and copies, in whichever process they are: it carries a mark. What the command line reads before the job
starts does not count, and neither do the settings stored with a model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from genre import config
from genre.settings import Config, Settings
from ray_jobs.engine import jobs

S = TypeVar("S", bound=Settings)

_MARK = "recorded"  # added to the set of fields that were given, which copies and pickles keep
_SECTIONS = {type(field.default): f"{name}." for name, field in Config.model_fields.items()} | {Config: ""}
_recorded: set[str] = set()
_dumped: list[bool] = []  # not empty once this process has dumped the job's configuration
_original_dump, _original_load, _original_validate = Settings.model_dump, jobs.load, config.validate


def _mark(settings: S) -> S:
    marked = settings.model_copy()
    marked.__pydantic_fields_set__.add(_MARK)
    return marked


def _record(settings: Settings, name: str) -> None:
    key = _SECTIONS[type(settings)] + name
    if key not in _recorded:
        _recorded.add(key)
        with open(os.environ["RECORD_SETTINGS"], "a", encoding="utf-8") as file:
            file.write(key + "\n")


def _is_marked(settings: Settings) -> bool:
    return type(settings) in _SECTIONS and _MARK in settings.__pydantic_fields_set__


def _get(self: Settings, name: str) -> Any:
    value = object.__getattribute__(self, name)
    if not name.startswith("_") and name in type(self).model_fields and _is_marked(self):
        if isinstance(value, Settings):
            return _mark(value)
        _record(self, name)
    return value


def _dump(self: Settings, **options: Any) -> dict[str, Any]:
    if _is_marked(self) and type(self) is Config:
        _dumped.append(True)
    elif _is_marked(self):
        for name in set(type(self).model_fields) - set(options.get("exclude") or ()):
            _record(self, name)
    return _original_dump(self, **options)


def _validate(schema: type[S], values: Mapping[str, Any], prefix: str = "") -> S:
    """Mark the result as well: the search makes the configurations of its trials from a dump of the job's."""
    settings = _original_validate(schema, values, prefix)
    return _mark(settings) if schema is Config and _dumped else settings


def _load(name: str) -> Callable[[Config], None]:
    run = _original_load(name)

    return lambda settings: run(_mark(settings))


Settings.__getattribute__ = _get  # type: ignore[method-assign,assignment]
Settings.model_dump = _dump  # type: ignore[method-assign,assignment]
config.validate = _validate
jobs.load = _load
