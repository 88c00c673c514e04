"""Download a published corpus, check it and unpack it; without a name, list the available ones.

`genre fetch gtzan` writes into corpus.root, or else below data/. The licence is shown first. An interrupted download
resumes, and an existing corpus is not changed. Archives stay next to the unpacked folders and may be deleted then. An
archive that you already have is used if you put it there. No other job downloads music. Ray is not started.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from genre import fetching
from genre.errors import ConfigError
from genre.fetching import Published
from genre.settings import Config, require_known
from genre.storage import lease
from ray_jobs.engine import cli, printing
from ray_jobs.engine.progress import JobProgress

_MB = 1_000_000
_REFRESH_SECONDS = 0.1


def run(config: Config) -> None:
    """Fetch `fetch.name` into `corpus.root`, or list the published corpora."""
    table = fetching.read_table(config.fetch.table)
    if not config.fetch.name:
        printing.show(_listing(table))
        return
    name, corpus, root = _chosen(config.fetch.name, config.corpus.root, table)
    if fetching.is_fetched(corpus, root):
        cli.say(f"fetch: {name} is in {root} already; nothing to do")
    else:
        _announce(name, corpus, root)
        with lease.held(str(root), "fetch", "corpus.root"):
            fetching.fetch(corpus, root, _Terminal())
        archives = [str(root / archive.file) for archive in corpus.archives if (root / archive.file).exists()]
        cli.say(f"fetch: {name} is in {root}; no longer needed: {shlex.join(archives)}")
    cli.say("next:")
    printing.show(shlex.join(corpus.command(name, str(root))))


def forecast(config: Config) -> None:
    """Print what would be fetched, for --dry-run."""
    table = fetching.read_table(config.fetch.table)
    if config.fetch.name:
        _announce(*_chosen(config.fetch.name, config.corpus.root, table))


def _chosen(name: str, folder: str, table: dict[str, Published]) -> tuple[str, Published, Path]:
    """Return the name of the corpus to fetch, the corpus, and the folder to fetch it into."""
    require_known("fetch.name", name, table)
    if "://" in folder:
        raise ConfigError(f"corpus.root={folder}: archives are unpacked on this machine; name a local folder")
    return name, table[name], Path(folder or f"data/{table[name].kind}").expanduser()


def _announce(name: str, corpus: Published, root: Path) -> None:
    need, free = fetching.disk_need(corpus, root), fetching.free_space(root)
    cli.say(f"fetch: {name}: {corpus.title}")
    cli.say(f"       licence: {corpus.licence}")
    cli.say(f"       {root} needs about {need / 1e9:,.1f} GB, unpacked files included; {free / 1e9:,.1f} GB are free")


def _listing(table: dict[str, Published]) -> str:
    lines = ["published corpora, fetched by `genre fetch NAME`:"]
    for name, corpus in table.items():
        size = sum(archive.size for archive in corpus.archives) / 1e9
        lines += [f"  {name:<12} {size:6,.1f} GB  {corpus.title}", f"{'':25}licence: {corpus.licence}"]
    return "\n".join(lines)


class _Terminal:
    """Shows lines and bars as other jobs do."""

    def say(self, line: str) -> None:
        cli.say(f"fetch: {line}")

    @contextmanager
    def bar(self, action: str, done: int, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar in MB within the block. Yield a function that adds a number of bytes."""
        arrived, shown_mb = 0, 0
        begin = refreshed = time.monotonic()
        with JobProgress("fetch", total // _MB, unit="MB") as progress:
            progress.step(done // _MB, action)

            def advance(count: int) -> None:
                nonlocal arrived, shown_mb, refreshed
                arrived += count
                now = time.monotonic()
                if now - refreshed >= _REFRESH_SECONDS:
                    refreshed = now
                    rate = arrived / _MB / (now - begin)
                    progress.step(arrived // _MB - shown_mb, f"{action}, {rate:.1f} MB/s")
                    shown_mb = arrived // _MB

            yield advance


if __name__ == "__main__":
    sys.exit(cli.main("fetch"))
