"""Read, check, print and compare settings. Their schema is in `genre.settings`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from genre import grammar, registry
from genre.credentials import without_credentials
from genre.errors import ConfigError, one_line
from genre.settings import Config, CorpusSettings, Settings

S = TypeVar("S", bound=Settings)

_RENAMED = {  # former names of settings and sections: using one is an error that gives the new name
    "model.name": "architecture",
    "model.path": "model",
    "models": "architectures",
    "tag.precision": "min_precision",
    "train.device": "device",
    "train.precision": "train.dtype",
    "prepare.file_timeout_s": "decoding.file_timeout_s",
    "prepare.max_file_memory_mb": "decoding.max_file_memory_mb",
    "prepare.max_track_seconds": "decoding.max_track_seconds",
    "prepare.min_decoded_fraction": "decoding.min_decoded_fraction",
    "prepare.retry_rejects": "decoding.retry_rejects",
}


def load(path: str | None = None, overrides: Iterable[str] = ()) -> Config:
    """Merge the defaults, the YAML file at `path` and `key=value` overrides with dotted keys, in this order.

    The value of an override is taken literally for a setting of type string, and is parsed as YAML for the others.
    Raises `ConfigError` for an unreadable file, an unknown key or a value out of range.
    """
    merged = _read_yaml(path) if path else {}
    settings = [_split(text) for text in overrides]
    # corpus.params.* come last: corpus.kind decides their types
    for key, text in sorted(settings, key=lambda setting: setting[0].startswith("corpus.params.")):
        _refuse_renamed(key)
        keys = key.split(".")
        try:
            value = grammar.value(text, _type_of(keys, merged))
        except ValueError:
            raise ConfigError(f"{key}={text}: the value is not valid YAML; quote the strings in it") from None
        _assign(merged, keys, value)
    return validate(Config, merged)


def validate(schema: type[S], values: Mapping[str, Any], prefix: str = "") -> S:
    """Return `values` as settings of type `schema`. Raises `ConfigError` with one line that names the key."""
    for key in _dotted_keys(values, prefix):
        _refuse_renamed(key)
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_explain(error, schema, prefix)) from None


def describe(settings: Settings, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each setting as (dotted key, value as the command line takes it, description)."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from describe(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value), field.description or ""


def to_yaml(config: Settings, names: Iterable[str] = (), only_changed: bool = False) -> str:
    """Return settings as YAML that `load` reads: those with these `names`, sections or keys of them, or all.

    With `only_changed` those that have their defaults are left out; "" if all have. Credentials in addresses are
    replaced by ***.
    """
    values = config.model_dump(mode="json")
    chosen: dict[str, Any] = {}
    for name in names:
        section, _, key = name.partition(".")
        if key:
            chosen.setdefault(section, {})[key] = values[section][key]
        else:
            chosen[section] = values[section]
    shown = {name: chosen[name] for name in values if name in chosen} or values
    if only_changed:
        shown = _changed(shown, type(config)().model_dump(mode="json"))
        if not shown:
            return ""
    return without_credentials(yaml.safe_dump(shown, sort_keys=False))


def fingerprint(*sections: Settings | Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that change with any value in `sections`."""
    plain = [s.model_dump(mode="json") if isinstance(s, Settings) else dict(s) for s in sections]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def differences(expected: dict[str, Any], actual: dict[str, Any], prefix: str = "") -> list[str]:
    """Return a line "key is x, expected y" for each setting that differs."""
    lines = []
    for key in sorted(expected.keys() | actual.keys()):
        left, right = expected.get(key), actual.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            lines += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(f"{prefix}{key} is {right}, expected {left}")
    return lines


def _changed(values: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that differ from the defaults; of nested ones what differs below."""
    changed: dict[str, Any] = {}
    for key, value in values.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict):
            if below := _changed(value, default):
                changed[key] = below
        elif key not in defaults or value != default:
            changed[key] = value
    return changed


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"--config {path}: cannot be read ({error.strerror}); the shipped ones are in configs/"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: not YAML ({one_line(error)})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path}: holds a {type(content).__name__}; write 'section:' lines with keys below")
    return content


def _split(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        example = f"corpus.root={text} or output={text}" if os.path.isdir(text) else "output=outputs/run"
        raise ConfigError(f"{text!r} is not a setting; write key=value, for example {example}")
    return key.strip(), value


def _type_of(keys: list[str], merged: Mapping[str, Any]) -> Any:
    """Return the type of a setting; those of a corpus or an architecture are declared in its module."""
    match keys:
        case ["corpus", "params", *below] if below:
            corpus = merged.get("corpus")
            kind = corpus.get("kind") if isinstance(corpus, dict) else None
            package, name = "genre.corpora", kind or CorpusSettings().kind
        case ["architectures", name, *below] if below:
            package = "genre.architectures"
        case _:
            return grammar.annotation(Config, keys)
    return grammar.annotation(registry.load(package, name).Params, below) if name in registry.names(package) else Any


def _assign(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for depth, key in enumerate(keys[:-1]):
        branch = tree.setdefault(key, {})
        if not isinstance(branch, dict):
            raise ConfigError(
                f"{'.'.join(keys)}: {'.'.join(keys[: depth + 1])} is a single value and has no keys below it"
            )
        tree = branch
    tree[keys[-1]] = value


def _dotted_keys(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _dotted_keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _refuse_renamed(key: str) -> None:
    """Raise `ConfigError` if `key` is a former name of a setting, or is below a former section."""
    for former, present in _RENAMED.items():
        if f"{key}.".startswith(f"{former}."):
            raise ConfigError(f"{key} was renamed to {present}{key.removeprefix(former)}")


def _explain(error: ValidationError, schema: type[Settings], prefix: str) -> str:
    """Return the first problem of a pydantic error as one line: the key, what was found and what to do."""
    first = error.errors()[0]
    key = prefix + ".".join(str(part) for part in first["loc"])
    context = first.get("ctx", {})
    if first["type"] == "value_error":  # raised by a check of this project, with a complete message
        return str(context["error"])
    if first["type"] == "extra_forbidden":
        keys, below = [str(part) for part in first["loc"]], first.get("input")
        while isinstance(below, dict) and below:  # an unknown section: the keys below it show which was meant
            name, below = next(iter(below.items()))
            keys.append(str(name))
        return f"unknown key {prefix + '.'.join(keys)!r}; {grammar.nearest_key(schema, keys, prefix)}"
    value = json.dumps(first.get("input"), default=str)
    if first["type"].startswith("model_"):
        return f"{key}: found {value}; it is a section, set {key}.KEY for one of its keys"
    if first["type"] == "list_type":
        return f"{key}: found {value}; write a list: [{first.get('input')}]"
    if first["type"] == "literal_error":
        return f"{key}: found {value}; use {context['expected']}"
    for bound, words in (("ge", "at least"), ("le", "at most"), ("gt", "more than"), ("lt", "less than")):
        if bound in context:
            return f"{key}: found {value}; must be {words} {context[bound]}"
    return f"{key}: found {value}; {first['msg'][0].lower()}{first['msg'][1:]}"
