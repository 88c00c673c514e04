"""Fill in the genres of a beets library with a saved model, see the README of this package."""

from __future__ import annotations

import optparse
from collections.abc import Iterable
from functools import cached_property

from beets import ui
from beets.importer import ImportSession, ImportTask
from beets.library import Item, Library
from beets.plugins import BeetsPlugin

from genre import Tagger
from genre.errors import GenreError
from genre.model.calibration import UNKNOWN


class GenreModelPlugin(BeetsPlugin):
    """The command `beet genre`, and a stage of the import."""

    def __init__(self) -> None:
        super().__init__()
        self.config.add({"model": "", "min_precision": 0.8, "values": 1, "auto": True, "force": False})
        if self.config["auto"].get(bool):
            self.import_stages = [self.imported]

    def commands(self) -> list[ui.Subcommand]:
        """Return the command line of the plug-in."""
        command = ui.Subcommand("genre", help="fill in missing genres with a model of genre")
        command.parser.add_option("-f", "--force", action="store_true", help="replace genres that songs have")
        command.parser.add_option("-p", "--pretend", action="store_true", help="only show what would change")
        command.func = self.run
        return [command]

    def run(self, library: Library, options: optparse.Values, query: list[str]) -> None:
        """Name the genres of the songs that a query finds, and write them where beets writes tags."""
        force = bool(options.force) or self.config["force"].get(bool)
        for item in self._named(library.items(query), force):
            ui.print_(f"{item}: {', '.join(item.genres)}")
            if options.pretend:
                continue
            item.store()
            if ui.should_write():
                item.try_write()

    def imported(self, session: ImportSession, task: ImportTask) -> None:
        """Name the genres of new songs. The import writes them into the files if it found a match."""
        for item in self._named(task.imported_items(), self.config["force"].get(bool)):
            item.store()

    @cached_property
    def _tagger(self) -> Tagger:
        """Return the model, which is loaded when the first song needs it."""
        if not self.config["model"].get(str):
            raise ui.UserError("genremodel.model is empty; name an exported model in the configuration of beets")
        try:
            return Tagger.load(self.config["model"].as_filename(), self.config["min_precision"].as_number())
        except GenreError as error:
            raise ui.UserError(f"genremodel: {error}") from None

    def _named(self, items: Iterable[Item], force: bool) -> Iterable[Item]:
        """Yield the songs that got other genres. They are not stored."""
        for item in items:
            if item.genres and not force:
                self._log.debug("has a genre: {}", item)
                continue
            genres = self._genres(item)
            if genres and genres != item.genres:
                item.genres = genres
                yield item

    def _genres(self, item: Item) -> list[str]:
        """Return the genres of a song, best first: none where the model is unsure, or the file cannot be read."""
        (tags,) = self._tagger.tag([item.filepath])
        if tags.reason:
            self._log.warning("{}: {}: {}", item.filepath, tags.reason, tags.message)
            return []
        if tags.genre == UNKNOWN:
            self._log.info("unknown, most likely {}: {}", tags.genres[0][0], item)
            return []
        least = tags.genres[0][1] / 2
        return [genre for genre, probability in tags.genres[: self.config["values"].get(int)] if probability >= least]
