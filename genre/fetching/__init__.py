"""Fetching: published corpora to folders that `genre.corpora` reads.

Input: the table of published corpora, and a local folder. Output: verified archives and the unpacked corpus.
Independent of audio, features and models.
"""

from __future__ import annotations

from genre.fetching.download import Watch
from genre.fetching.fetch import disk_need, fetch, free_space, is_fetched
from genre.fetching.published import Archive, Published, read_table

__all__ = ["Archive", "Published", "Watch", "disk_need", "fetch", "free_space", "is_fetched", "read_table"]
