"""Record which settings a job reads, in its driver and in all its workers. Put this folder on PYTHONPATH.

Each process appends the dotted keys to the file that RECORD_SETTINGS names. Recording starts with the job's own code:
what the command line and the schema's own check read does not count.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from genre import config
from genre.config import Config, Settings
from ray_jobs import jobs

_SECTIONS = {type(field.default): f"{name}." for name, field in Config.model_fields.items()} | {Config: ""}
_read: set[str] = set()
_state = {"on": "--dry-run" not in sys.argv and not any(name in jobs.JOBS for name in sys.argv)}


def _note(settings: Settings, name: str) -> None:
    key = _SECTIONS[type(settings)] + name
    if _state["on"] and key not in _read and sys._getframe(2).f_code.co_name != "_cross_check":
        _read.add(key)
        with open(os.environ["RECORD_SETTINGS"], "a", encoding="utf-8") as file:
            file.write(key + "\n")


def _get(self: Settings, name: str) -> Any:
    found = object.__getattribute__(self, name)
    if type(self) in _SECTIONS and name in type(self).model_fields and not isinstance(found, Settings):
        _note(self, name)
    return found


def _dump(self: Settings, **options: Any) -> dict[str, Any]:
    if type(self) in _SECTIONS and type(self) is not Config:
        for name in set(type(self).model_fields) - set(options.get("exclude") or ()):
            _note(self, name)
    return _plain_dump(self, **options)


def _load(name: str) -> Any:
    run = _plain_load(name)
    _state["on"] = True
    return run


_plain_dump, _plain_load = Settings.model_dump, jobs.load
Settings.__getattribute__ = _get  # type: ignore[method-assign,assignment]
config.Settings.model_dump = _dump  # type: ignore[method-assign,assignment]
jobs.load = _load
