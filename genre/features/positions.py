"""A fixed position in [0, 1) for each name, drawn from the name and a seed alone.

Names that end in a number (`blues.00017`, `artist 4`) are placed in permuted blocks, as in randomised clinical trials:
each block of 20 numbers with the same text around them takes each twentieth of [0, 1) once, in an order drawn from that
text. Complete blocks are therefore stratified exactly; incomplete blocks vary less than independent draws.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]

_BLOCK = 20  # the default shares of 15 % and 20 % are integers: 3 and 4
_NUMBERED = r"(?s)^(?P<before>.*?)(?P<number>[0-9]{1,9})(?P<after>[^0-9]*(?:\.[A-Za-z][A-Za-z0-9]{0,4})?)$"


def positions(names: pa.StringArray, seed: int) -> Floats:
    """Return the position in [0, 1) of each name."""
    parts = pc.extract_regex(names, _NUMBERED)
    numbered = parts.is_valid().to_numpy(zero_copy_only=False)
    before, number, after = (pc.struct_field(parts, field) for field in ("before", "number", "after"))
    stem = pc.if_else(parts.is_valid(), pc.binary_join_element_wise(before, after, "\0"), names)
    numbers = pc.fill_null(pc.cast(number, pa.uint64()), 0).to_numpy(zero_copy_only=False)
    block, index = np.divmod(numbers, np.uint64(_BLOCK))
    block_word = _mix(_hashes(stem, seed) + _mix(block))
    word = _mix(block_word + index + np.uint64(1))
    rank = np.zeros(len(names))
    for other in range(1, _BLOCK + 1):  # how many of the block's 20 words are smaller: a random permutation
        rank += _mix(block_word + np.uint64(other)) < word
    return np.where(numbered, (rank + _unit_interval(_mix(word))) / _BLOCK, _unit_interval(block_word))


def _hashes(texts: pa.StringArray, seed: int) -> Words:
    """Return the 64-bit keyed BLAKE2 hash of each text: the same in every process, version and machine."""
    encoded = texts.dictionary_encode()
    key = str(seed).encode()
    words = (
        int.from_bytes(hashlib.blake2b(text.as_py().encode(), digest_size=8, key=key).digest(), "little")
        for text in encoded.dictionary
    )
    unique = np.fromiter(words, dtype=np.uint64, count=len(encoded.dictionary))
    codes: npt.NDArray[np.int64] = encoded.indices.to_numpy()
    return unique[codes]


def _mix(words: Words) -> Words:
    """Return a hash of each 64-bit word (the finalizer of SplitMix64; Steele, Lea, Flood, OOPSLA 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _unit_interval(words: Words) -> Floats:
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
