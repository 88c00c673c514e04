"""The hashes of files that are already tagged, as arrays that all processes of a machine share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from genre.arrays import Ints
from genre.features.columns import combined

_DIGEST = "S64"  # SHA-256 in hexadecimal


@dataclass(frozen=True)
class KnownContents:
    """Contents, and the sizes of their files: a file of another size need not be read to know that it is new."""

    digests: npt.NDArray[np.bytes_]  # (contents,) sorted
    sizes: Ints  # (sizes,) bytes, sorted

    @classmethod
    def of(cls, contents: pa.ChunkedArray, sizes: pa.ChunkedArray) -> KnownContents:
        """Return these SHA-256 in hexadecimal and sizes in bytes."""
        digests = combined(contents.cast(pa.binary()).cast(pa.binary(64)))
        values = np.frombuffer(digests.buffers()[1] or b"", _DIGEST)[digests.offset :][: len(digests)]
        return cls(np.sort(values), np.unique(sizes.to_numpy()))

    @classmethod
    def none(cls) -> KnownContents:
        """Return no contents."""
        return cls(np.zeros(0, _DIGEST), np.zeros(0, np.int64))

    def has_size(self, size: int) -> bool:
        """Return whether a file with a known content has this size."""
        place = int(np.searchsorted(self.sizes, size))
        return place < len(self.sizes) and int(self.sizes[place]) == size

    def __contains__(self, content: str | None) -> bool:
        if content is None:
            return False
        digest = content.encode()
        place = int(np.searchsorted(self.digests, np.bytes_(digest)))
        return place < len(self.digests) and bytes(self.digests[place]) == digest
