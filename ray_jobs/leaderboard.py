"""Write the leaderboard of an output again from its saved predictions, or combine those of several outputs.

With leaderboard.compare=[DIR, DIR] the leaderboards of these outputs are merged into OUTPUT/compared: those with the
same test tracks are ranked together, others (such as GTZAN's filtered and random split) are shown next to each other.
Nothing is trained, and Ray is not started.
"""

from __future__ import annotations

import sys

from genre import report
from genre.settings import Config
from genre.storage import Location, lease
from ray_jobs.engine import cli, printing


def run(config: Config) -> None:
    """Write OUTPUT/leaderboard again, or OUTPUT/compared. Raises `GenreError` while another job writes the output."""
    output = Location.of(config.output)
    others = [Location.of(address) for address in config.leaderboard.compare]
    target = output / ("compared" if others else "leaderboard")
    if not others:
        report.best_network(target)  # raises if there is no board: the lease would make the folder of a wrong output
    with lease.held(config.output, "leaderboard"):  # `tune` may write the same board
        table = report.write(_merged(others) if others else report.read_board(target), target)
    printing.show(report.text_table(table, printing.width(report.TEXT_WIDTH)))
    cli.say(f"report: {target / 'leaderboard.html'}")


def _merged(outputs: list[Location]) -> report.Board:
    """Return the leaderboards of several outputs as one."""
    unique = len({output.name for output in outputs}) == len(outputs)
    labels = [output.name if unique else str(output) for output in outputs]
    boards = [report.read_board(output / "leaderboard") for output in outputs]
    return report.merge(dict(zip(labels, boards, strict=True)))


if __name__ == "__main__":
    sys.exit(cli.main("leaderboard"))
