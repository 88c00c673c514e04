"""Classify music by genre from spectrograms. No module in this package imports Ray.

`from genre import Tagger` names the genres of files and arrays with a saved model; see docs/USING_MODELS.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genre.tagging.tagger import Moment, Tagger, Tags

__version__ = "0.1.0"
__all__ = ["Moment", "Tagger", "Tags", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the tagger on first use, since workers that only decode import this package too."""
    if name in ("Moment", "Tagger", "Tags"):
        from genre.tagging import tagger

        return getattr(tagger, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
