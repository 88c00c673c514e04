"""An architecture and a corpus for genre, registered by the entry points in pyproject.toml."""
