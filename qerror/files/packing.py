"""Codes of less than a word, packed: two in a byte, or several in a word of 32 bits, the first one lowest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORD = 32


def pack_nibbles(codes: NDArray[Any]) -> NDArray[np.uint8]:
    """Two codes of 4 bits in a byte, the one of even index low; the last axis has half the length.

    Examples
    --------
    >>> pack_nibbles(np.array([1, 2, 15, 0])).tolist()
    [33, 15]
    """
    if codes.shape[-1] % 2:
        raise ValueError(f"codes must be an even number to be packed in pairs, got {codes.shape[-1]} in a row")
    low, high = (codes[..., start::2].astype(np.uint8) & np.uint8(15) for start in (0, 1))
    return low | high << np.uint8(4)


def unpack_nibbles(content: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The inverse of `pack_nibbles`.

    Examples
    --------
    >>> unpack_nibbles(np.array([33, 15], np.uint8)).tolist()
    [1, 2, 15, 0]
    """
    return np.stack([content & 15, content >> 4], axis=-1).reshape(*content.shape[:-1], 2 * content.shape[-1])


def words_for(count: int, bits: int) -> int:
    """Words of 32 bits that so many codes need, where none crosses a word.

    Examples
    --------
    >>> words_for(9, 4)
    2
    """
    return -(-count // (_WORD // bits))


def pack_words(codes: NDArray[Any], bits: int) -> NDArray[np.int32]:
    """Unsigned codes of 2, 4 or 8 bits along the last axis in words; what is left of the last word is 0.

    Examples
    --------
    >>> [hex(word) for word in pack_words(np.array([[1, 2, 3, 4, 5]]), 8)[0]]
    ['0x4030201', '0x5']
    """
    per_word = _WORD // bits
    words = np.zeros((*codes.shape[:-1], words_for(codes.shape[-1], bits)), np.uint32)
    for place in range(per_word):
        own = codes[..., place::per_word]
        words[..., : own.shape[-1]] |= own.astype(np.uint32) << np.uint32(place * bits)
    return words.view(np.int32)


def unpack_words(words: NDArray[Any], bits: int, count: int) -> NDArray[np.uint8]:
    """The inverse of `pack_words`: the first `count` codes.

    Examples
    --------
    >>> unpack_words(np.array([[0x04030201, 5]]), 8, 5).tolist()
    [[1, 2, 3, 4, 5]]
    """
    per_word, mask = _WORD // bits, np.uint32((1 << bits) - 1)
    unsigned = words.astype(np.uint32) if words.dtype.itemsize > 4 else words.view(np.uint32)
    codes = np.empty((*words.shape, per_word), np.uint8)
    for place in range(per_word):
        codes[..., place] = unsigned >> np.uint32(place * bits) & mask
    return codes.reshape(*words.shape[:-1], -1)[..., :count]
