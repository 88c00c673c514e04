"""Show which seconds and which frequencies of songs decided, as a picture and as a page to listen to.

    genre explain song.mp3 model=outputs/gtzan/models/resnet

Write OUTPUT/explained/<song>-<digits>.html and .png for the file `inputs`, or for each file of that folder.
"""

from __future__ import annotations

import hashlib
import sys

from genre import explaining
from genre.config import Config
from genre.errors import AudioError, ConfigError, GenreError
from genre.explaining.excerpt import excerpt
from genre.storage import Location
from genre.tagging import collection
from genre.tagging.tagger import Tagger
from ray_jobs.engine import cli
from ray_jobs.engine.tag_report import clock
from ray_jobs.tag import find_models


def run(config: Config) -> None:
    """Explain every file of `config.inputs`. Raises `GenreError` when one of them cannot be read, after the others."""
    folders = find_models(config)
    if len(folders) > 1:
        raise ConfigError("explain takes one model; name one with model=FOLDER")
    files = collection.list_files(config.inputs)["path"].to_pylist()
    tagger = Tagger.load(str(folders[0]), config.tag.precision, config.prepare)
    target = Location.of(config.output) / "explained"
    failures = []
    for path in files:
        try:
            _say(_explain_file(config, tagger, path, target))
        except AudioError as error:
            failures.append(path)
            _say(f"explain: {path}: {error.reason.value}: {' '.join(str(error).split())}")
    if failures:
        raise GenreError(f"{len(failures)} of {len(files)} files could not be read, first {failures[0]}; see above")


def _explain_file(config: Config, tagger: Tagger, path: str, target: Location) -> str:
    """Write the two files of one song; a line that says what decided, and where to look."""
    settings, limits = config.explain, config.prepare
    track = tagger.decode(path)
    tags = tagger.name(path, track)
    genre = settings.genre or tags.genres[0][0]
    found = explaining.explain(
        tagger.cards[0], tagger.classifiers[0], track, genre, settings.steps, settings.max_seconds
    )
    song = Location.of(path).name
    # songs of one name in two folders are two pages
    place = f"{song.rpartition('.')[0] or song}-{hashlib.sha256(path.encode()).hexdigest()[:6]}"
    music = excerpt(path, found.start + found.seconds, limits)
    model = f"{tagger.cards[0].architecture} · {found.genre} {dict(tags.genres)[genre]:.0%}"
    page = target / f"{place}.html"
    page.write_text(explaining.html(found, song, tags.genres, music, model))
    (target / f"{place}.png").write_bytes(explaining.png(found, f"{song}: what speaks for {genre}"))
    best = clock(max(found.by_second(), key=lambda second: second[1])[0])
    return f"explain: {song}: {genre} {dict(tags.genres)[genre]:.0%}, most of all at {best} -> {page}"


def _say(text: str) -> None:
    cli.console().print(text, markup=False)


if __name__ == "__main__":
    sys.exit(cli.main("explain"))
