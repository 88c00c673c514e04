"""Review the genres of a tagged collection on a page: hear each track, accept or correct its genre with a key.

    genre review output=outputs/mine

Show OUTPUT/tags at http://127.0.0.1:8001, labels to check and the least certain predictions first. Each decision is
saved at once in OUTPUT/review/corrections.csv. To train on them as well, prepare your music again with
corpus.corrections=OUTPUT/review/corrections.csv. Only this machine can connect. Ctrl-C ends the service; the next
start continues there. If the model that made the tags was moved, name its folder with model=. Needs
`pip install '.[serve]'`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from genre.reviewing.collection import Collection, Suspicion, read_suspicions
from genre.reviewing.corrections import NAME, Corrections
from genre.reviewing.review import Review
from genre.settings import Config, ReviewSettings
from genre.storage import Location, lease
from genre.tagging import tag_owner
from genre.wording import plural
from ray_jobs.engine import cli
from ray_jobs.engine.models import find_models
from ray_jobs.pages import review_service


def run(config: Config) -> None:
    """Serve until interrupted. Raises `GenreError` when another job holds the output."""
    with lease.held(config.output, "review"):
        review = opened(config)
        with review_service.serving(review, config.review.port, config.output) as address:
            total, file = len(review.collection), review.corrections.file
            cli.say(f"review: {plural(total, 'track')}, {review.reviewed} already reviewed -> {file}")
            cli.say(f"review: {address} (Ctrl-C ends it)")
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
        cli.say(f"review: ended; {review.reviewed} of {plural(total, 'track')} reviewed")


def opened(config: Config) -> Review:
    """Return the review of OUTPUT/tags, with the decisions of earlier runs."""
    output = Location.of(config.output)
    tags = output / "tags"
    genres = tag_owner.genres_of(tags, find_models(config) if config.model else ())
    collection = Collection.open(tags, genres, _suspicions(config.review, output))
    if collection.ambiguous:
        cli.say(f"review: {_not_shown(collection.ambiguous)}")
    corrections = Corrections(output / "review" / NAME)
    if corrections.incomplete:
        cli.say(f"review: {corrections.file}: dropped the incomplete last row {corrections.incomplete!r}")
    return Review(collection, corrections)


def _not_shown(ambiguous: Sequence[str]) -> str:
    return (
        f"{plural(len(ambiguous), 'label')} to check not shown, because several files of the collection end in the "
        f"same track_id, such as {ambiguous[0]}; tag the corpus alone, or delete the copies and tag again"
    )


def _suspicions(settings: ReviewSettings, output: Location) -> list[Suspicion]:
    if settings.label_issues:
        return read_suspicions(Location.of(settings.label_issues))
    file = output / "leaderboard" / "label_issues.csv"
    return read_suspicions(file) if file.exists() else []


if __name__ == "__main__":
    sys.exit(cli.main("review"))
