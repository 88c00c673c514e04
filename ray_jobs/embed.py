"""Write a vector for each audio file below `inputs`, from the layer before the last one of a saved model.

    genre embed inputs=~/Music output=outputs/mine model=outputs/gtzan/models/resnet

Write OUTPUT/embeddings/embeddings.parquet, and OUTPUT/tags as `tag` does, in the same pass; with embed.clips=true also
OUTPUT/embeddings/clips.parquet, a vector for each clip. After an interruption, or with new files, the same command
processes only new files. `similar` and `playlist` search the vectors of the files.
"""

from __future__ import annotations

import sys

from genre.errors import ConfigError
from genre.model.saved_model import SavedEnsemble
from genre.retrieval import embedding_table
from genre.settings import Config
from genre.storage import Location, lease
from genre.tagging import audio_files
from genre.tagging.tag_table import TagTable
from genre.wording import plural
from ray_jobs import tag
from ray_jobs.engine import cli
from ray_jobs.engine.models import find_model


def run(config: Config) -> None:
    """Embed `config.inputs`. Raises `GenreError` when no file could be read, and `ConfigError` for an exported file."""
    model = find_model(config, "embed")
    ensemble = SavedEnsemble.read([model], config.min_precision)
    if ensemble.is_exported:
        raise ConfigError(f"{model}: an exported file gives no embeddings; name the folder it was made from")
    ensemble.check_weights()
    song, output = audio_files.single_file(config.inputs), Location.of(config.output)
    with lease.held(config.output, "embed"):  # before the files are listed, which may take minutes
        files = audio_files.list_files(config.inputs)
        table = TagTable(output / "tags", ensemble, embeds=True, clips=config.embed.clips, replace=config.tag.replace)
        rows = tag.tag_pending(config, ensemble, table, files, song)
        tag.check_any_readable(rows, table.folder / "failures.csv")
        written = embedding_table.write(output / "embeddings", ensemble, table.rows())
        clips = embedding_table.write_clips(output / "embeddings", ensemble, table.rows()) if config.embed.clips else 0
    size = f"{plural(written.rows, 'embedding')} of {plural(written.size, 'number')}"
    of_clips = f", and {plural(clips, 'embedding')} of clips" if clips else ""
    cli.say(f"embed: {size}{of_clips} -> {written.file}")


if __name__ == "__main__":
    sys.exit(cli.main("embed"))
