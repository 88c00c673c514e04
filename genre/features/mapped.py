"""A file mapped into memory: its pages are shared by all processes of the machine, and given back under pressure."""

from __future__ import annotations

import copy
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre.arrays import Ints


class MappedFile:
    """A read-only file whose content is an array of bytes.

    `keep` is held as long as the mapping, for example a lock on the file.
    """

    def __init__(self, path: Path, keep: object = None) -> None:
        self._keep = keep
        self._begin = 0
        with path.open("rb") as file:
            self._size = path.stat().st_size
            # an empty file cannot be mapped
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self._size else None
        if self._map is not None and hasattr(self._map, "madvise"):
            # windows lie anywhere: reading ahead of one would read eight times as much from the disk
            self._map.madvise(mmap.MADV_RANDOM)

    def array(self, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return the content as an array that keeps the mapping open."""
        if self._map is None:
            return np.zeros(shape, dtype)
        return np.frombuffer(self._map, dtype).reshape(shape)

    def after(self, offset: int) -> MappedFile:
        """Return the same file for `prefetch` of what lies after `offset` bytes."""
        part = copy.copy(self)
        part._begin = self._begin + offset
        return part

    def prefetch(self, offsets: Ints, length: int) -> None:
        """Start to read `length` bytes at each of `offsets`, without waiting for them."""
        if self._map is None or not hasattr(self._map, "madvise"):
            return
        offsets = offsets + self._begin
        begins = offsets // mmap.PAGESIZE * mmap.PAGESIZE
        sizes = np.minimum(offsets + length, self._size) - begins
        for begin, size in zip(begins.tolist(), sizes.tolist(), strict=True):
            self._map.madvise(mmap.MADV_WILLNEED, begin, size)
