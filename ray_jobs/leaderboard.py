"""Write the leaderboard of an output again from its saved predictions, or combine those of several outputs.

With leaderboard.compare=[DIR, DIR] the leaderboards of these outputs are merged into OUTPUT/compared: those with the
same test tracks are ranked together, others (such as GTZAN's filtered and random split) are shown next to each other.
Nothing is trained, and Ray is not started.
"""

from __future__ import annotations

import sys

from genre import report
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import cli, printing


def run(config: Config) -> None:
    """Write OUTPUT/leaderboard again, or OUTPUT/compared."""
    output = Location.of(config.output)
    others = [Location.of(address) for address in config.leaderboard.compare]
    target = output / ("compared" if others else "leaderboard")
    if others:
        unique = len({other.name for other in others}) == len(others)
        labels = [other.name if unique else str(other) for other in others]
        boards = [report.read_board(other / "leaderboard") for other in others]
        board = report.merge(dict(zip(labels, boards, strict=True)))
    else:
        board = report.read_board(target)
    printing.show(report.text_table(report.write(board, target)))
    cli.console().print(f"report: {target / 'leaderboard.html'}")


if __name__ == "__main__":
    sys.exit(cli.main("leaderboard"))
