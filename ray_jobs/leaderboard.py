"""Write a run's leaderboard again from its saved results, or combine those of several runs.

With leaderboard.compare=[DIR, DIR] the leaderboards of these outputs become one, OUTPUT/compared: runs with the same
test tracks are ranked together, others (GTZAN's filtered and random split, for example) are shown side by side.
Nothing is trained or scored, and Ray is not started.
"""

from __future__ import annotations

import sys

from genre import report
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import cli


def run(config: Config) -> None:
    """Write OUTPUT/leaderboard again, or OUTPUT/compared."""
    output = Location.of(config.output)
    others = [Location.of(address) for address in config.leaderboard.compare]
    target = output / ("compared" if others else "leaderboard")
    if others:
        alike = len({place.name for place in others}) < len(others)
        board = report.merge({str(p) if alike else p.name: report.read_board(p / "leaderboard") for p in others})
    else:
        board = report.read_board(target)
    print(report.text_table(report.write(board, target)))
    cli.console().print(f"report: {target / 'leaderboard.html'}")


if __name__ == "__main__":
    sys.exit(cli.main("leaderboard"))
