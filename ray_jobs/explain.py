"""Show which seconds and frequencies of a song were evidence for its genre, as a picture and as a page with sound.

    genre explain song.mp3 model=outputs/gtzan/models/resnet

Write OUTPUT/explained/<song>-<digits>.html and .png for the file `inputs`, or for each file of that folder.
"""

from __future__ import annotations

import hashlib
import sys

from genre import explaining
from genre.audio.excerpt import excerpt
from genre.errors import AudioError, GenreError
from genre.settings import Config, DecodingSettings, ExplainSettings
from genre.storage import Location
from genre.tagging.audio_files import list_files
from genre.tagging.tagger import Tagger
from genre.wording import clock, plural
from ray_jobs.engine import cli
from ray_jobs.engine.models import find_model


def run(config: Config) -> None:
    """Explain every file of `config.inputs`. Raises `GenreError` at the end when a file could not be read."""
    model = find_model(config, "explain")
    files = list_files(config.inputs)["path"].to_pylist()
    tagger = Tagger.load(str(model), config.min_precision, config.decoding)
    target = Location.of(config.output) / "explained"
    failures = []
    for number, path in enumerate(files, 1):
        place = f"{number} of {len(files)}: " if len(files) > 1 else ""
        try:
            line = _explain_file(config.explain, config.decoding, tagger, path, target)
        except AudioError as error:
            failures.append(path)
            line = error.line
        cli.say(f"explain: {place}{path}: {line}")
    if failures:
        count = f"{len(failures)} of {plural(len(files), 'file')}"
        raise GenreError(f"could not read {count}, the first is {failures[0]}; see the messages above")


def _explain_file(
    settings: ExplainSettings, limits: DecodingSettings, tagger: Tagger, path: str, target: Location
) -> str:
    """Write the page and the picture of a song; return a line about the strongest evidence, with the page's address."""
    track = tagger.decode(path)
    tags = tagger.name(path, track)
    genre = settings.genre or tags.genres[0][0]
    model = tagger.models[0]
    explanation = explaining.explain(model, track, genre, settings.steps, settings.max_seconds)
    song = Location.of(path).name
    # songs of the same name in two folders get two pages
    name = f"{song.rpartition('.')[0] or song}-{hashlib.sha256(path.encode()).hexdigest()[:6]}"
    probability = f"{genre} {dict(tags.genres)[genre]:.0%}"
    page = target / f"{name}.html"
    music = excerpt(path, explanation.start + explanation.seconds, limits)
    page.write_text(
        explaining.html(explanation, song, tags.genres, music, f"{model.card.architecture} · {probability}")
    )
    (target / f"{name}.png").write_bytes(explaining.png(explanation, f"{song}: evidence for {genre}"))
    best = clock(max(explanation.by_second(), key=lambda second: second[1])[0])
    return f"{probability}, most of all at {best} -> {page}"


if __name__ == "__main__":
    sys.exit(cli.main("explain"))
