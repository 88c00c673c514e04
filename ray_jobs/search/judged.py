"""Whether a search was judged before: the same command then keeps its report, and measures nothing again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import genre
import ray_jobs
from genre.config import fingerprint
from genre.errors import ArtifactError
from genre.features import Features, versions
from genre.model import calibration
from genre.model.saved_model import SavedModel
from genre.report import Board, Search, entries, read_board
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import cli
from ray_jobs.search.finals import Finals


def key_of(config: Config, features: Features, search: Search, trained: Finals, failures: Mapping[str, str]) -> str:
    """Return 16 hex digits that change with the models, the tracks, the settings and the code of a report.

    `failures` says why architectures were not searched.
    """
    models = [*trained.saved, *trained.defaults]
    content = {
        "code": [versions.packages(), _code()],
        "features": [str(features.folder), features.manifest.fingerprint, features.manifest.contents],
        "corpus": asdict(entries.corpus_facts(features)),
        "trials": [asdict(replace(trial, seconds=None)) for trial in search.trials],
        "budget": search.budget,
        "failures": dict(failures),
        "models": [[runs.name, runs.default_of, *map(_contents, runs.models)] for runs in models],
        "notes": trained.notes,
        "fold": str(trained.fold),
        "robustness": [config.tune.robustness, config.tune.robustness_tracks],
        "decoding": config.decoding.model_dump(mode="json", exclude={"retry_rejects"}),
        "seed": config.seed,
    }
    return fingerprint(content)


def earlier(folder: Location, key: str) -> Board | None:
    """Return the board in `folder` if it was judged from the same; None where it was not, or is damaged."""
    try:
        board = read_board(folder)
    except (ArtifactError, OSError):
        return None
    if board.judged_from != key:
        return None
    cli.say(
        "tune: nothing has changed since the models were judged; to judge them again, delete "
        f"{folder / 'leaderboard.json'}"
    )
    return board


def _code() -> str:
    """Return a hash of the source code: another version may judge in another way."""
    digest = hashlib.sha256()
    for package in (genre, ray_jobs):
        for file in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _contents(model: SavedModel) -> list[str]:
    """Return the hashes of the weights of a saved model, and of what it is calibrated by."""
    validation = model.location / calibration.FILE
    digest = hashlib.sha256(validation.read_bytes()).hexdigest() if validation.exists() else ""
    return [model.weights, digest]
