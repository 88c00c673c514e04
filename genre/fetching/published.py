"""The table of published corpora: `published.yaml`, or a file of the same form."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field

from genre import registry
from genre.config import validate
from genre.errors import ConfigError, one_line
from genre.settings import Settings, require_known

_LENGTHS = {name: 2 * hashlib.new(name).digest_size for name in ("md5", "sha1", "sha256")}  # in hexadecimal digits
_Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # of one file or folder, so that nothing is written elsewhere


def _checked(text: str) -> str:
    algorithm, _, digits = text.partition(":")
    if len(digits) != _LENGTHS.get(algorithm) or set(digits) - set("0123456789abcdef"):
        raise ConfigError(f"checksum {text!r}: write {', '.join(_LENGTHS)}, a colon and the hexadecimal digits")
    return text


class Archive(Settings):
    """A tar or zip file, with one folder inside that belongs to the corpus."""

    file: _Name = Field(description="name of the archive")
    folder: _Name = Field(description="folder in it; the others are left out")
    size: int = Field(gt=0, description="about its size in bytes")
    unpacked: int = Field(gt=0, description="about the size of its content in bytes")
    checksum: Annotated[str, AfterValidator(_checked)] = Field(description="sha256:..., sha1:... or md5:...")
    urls: list[Annotated[str, Field(pattern="^https?://")]] = Field(min_length=1, description="mirrors, the best first")


class Published(Settings):
    """A corpus that can be fetched."""

    title: str = Field(description="what it holds")
    licence: str = Field(description="what one may do with it")
    kind: str = Field(description="corpus.kind that reads it")
    params: dict[str, Any] = Field({}, description="corpus.params of this kind")
    archives: list[Archive] = Field(min_length=1, description="what is unpacked into one folder, in this order")

    def command(self, name: str, root: str) -> list[str]:
        """Return the words of the command that prepares it."""
        settings = {"corpus.kind": self.kind} | {f"corpus.params.{key}": value for key, value in self.params.items()}
        settings |= {"corpus.root": root, "output": f"outputs/{name}"}
        return ["genre", "prepare", *(f"{key}={value}" for key, value in settings.items())]


def read_table(path: str = "") -> dict[str, Published]:
    """Return the published corpora by name: those of the package, or of a YAML file. Raises `ConfigError`."""
    file = Path(path) if path else resources.files(__package__) / "published.yaml"
    try:
        rows = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"fetch.table={path}: cannot be read ({one_line(error)}); name a YAML file") from None
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise ConfigError(f"fetch.table={path}: holds no corpora; write it like genre/fetching/published.yaml")
    table = {str(name): validate(Published, row, f"{name}.") for name, row in rows.items()}
    for name, corpus in table.items():
        require_known(f"{name}.kind", corpus.kind, registry.names("genre.corpora"))
    return table
