"""Run the complete chain on composed music: prepare, then tune, with the small networks of the shipped demo.yaml.

Write the features, the models and the leaderboard to outputs/demo. Run it again to resume after an interruption.
"""

from __future__ import annotations

import sys

from genre.config import Config
from ray_jobs import cli, prepare, tune


def run(config: Config) -> None:
    """Prepare the synthetic corpus and search all architectures on it."""
    prepare.run(config)
    tune.run(config)


if __name__ == "__main__":
    sys.exit(cli.main("demo"))
