"""Songs in Parquet and tar files."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from music import config_of, write_song

from genre.config import validate
from genre.settings import Config

GENRES = ("blues", "jazz")


def write_loose(root: Path, count: int = 10) -> list[Path]:
    """Write songs in two genres' folders, the last one too damaged to be decoded."""
    paths = [write_song(root / GENRES[number % 2] / f"{number:02d}.wav", number) for number in range(count)]
    paths[-1].write_bytes(paths[-1].read_bytes()[:30])
    return paths


def hugging_face(target: Path, files: list[Path], row_group: int = 4, **columns: list[Any]) -> Path:
    """Write files as Hugging Face's hub does: a struct of bytes and path, and a ClassLabel."""
    audio = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    labels = [GENRES.index(path.parent.name) for path in files]
    feature = {"label": {"names": list(GENRES), "_type": "ClassLabel"}, "audio": {"_type": "Audio"}}
    table = pa.table({"audio": audio, "label": labels} | columns)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": feature}})})
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, target, row_group_size=row_group)
    return target


def webdataset(target: Path, files: list[Path]) -> Path:
    """Write files and their labels into a tar file, by turns as JSON and as text."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w") as archive:
        for number, path in enumerate(files):
            add(archive, f"{path.stem}{path.suffix}", path.read_bytes())
            genre = path.parent.name
            if number % 2:
                add(archive, f"{path.stem}.cls", genre.encode())
            else:
                add(archive, f"{path.stem}.json", json.dumps({"genre": genre, "artist": f"a{number}"}).encode())
    return target


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def config(kind: str, root: Path, output: Path) -> Config:
    """Return the settings of `config_of` for another kind of corpus."""
    plain = config_of(root, output).model_dump()
    return validate(Config, plain | {"corpus": {"kind": kind, "root": str(root), "split": "random"}})
