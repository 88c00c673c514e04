"""Classify music by genre from spectrograms. The science: no module in here imports Ray.

`from genre import Tagger` names the genres of files and arrays with a saved model; see docs/USING_MODELS.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genre.tagging.tagger import Moment, Tagger, Tags

__version__ = "0.1.0"
__all__ = ["Moment", "Tagger", "Tags", "__version__"]


def __getattr__(name: str) -> Any:
    """Import torch only for those who ask for a tagger: workers that decode import this package as well."""
    if name in ("Moment", "Tagger", "Tags"):
        from genre.tagging import tagger

        return getattr(tagger, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
