"""The pages that jobs serve on this machine: that of `review`, and what `serve` shares with it.

Input: requests of a browser. Output: pages and JSON. Independent of Ray.

    review_service   the collection as a table with a player, and the corrections of a person
    remote_audio     a file of an object store for the player
    loopback         which requests are accepted, and how others are refused
    templates/       HTML, CSS and JavaScript of both pages
"""

from __future__ import annotations

from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
