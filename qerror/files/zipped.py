"""Bytes in the middle of a zip file's member: what is compressed can only be read forward, so it is read once."""

from __future__ import annotations

import threading
import zipfile
from typing import IO

import numpy as np
from numpy.typing import NDArray

# Pieces of a member that are kept behind the place where it is read: threads ask for parts in about their order.
_BLOCK, _KEPT = 1 << 20, 64


class _Forward:
    """Reads one member of one archive at a time, and remembers where it is and what it has just read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._archive: zipfile.ZipFile | None = None
        self._member: zipfile.ZipInfo | None = None
        self._stream: IO[bytes] | None = None
        self._next = 0
        self._blocks: dict[int, bytes] = {}

    def read(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, begin: int, end: int) -> NDArray[np.uint8]:
        """Bytes `begin` to `end` of a member; where its end is read its sum is checked."""
        with self._lock:
            try:
                return self._read(archive, member, begin, end)
            except BaseException:
                # What is damaged or was interrupted is begun anew.
                self._close()
                raise

    def _read(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, begin: int, end: int) -> NDArray[np.uint8]:
        out = np.empty(end - begin, np.uint8)
        if archive is not self._archive or member is not self._member:
            self._start(archive, member)
        for number in range(begin // _BLOCK, -(-end // _BLOCK)):
            block, at = self._block(number), number * _BLOCK
            first, last = max(begin, at), min(end, at + _BLOCK)
            if len(block) < last - at:
                raise EOFError(f"it ends at byte {at + len(block)}")
            out[first - begin : last - begin] = np.frombuffer(block, np.uint8)[first - at : last - at]
        return out

    def forget(self, archive: zipfile.ZipFile) -> None:
        """Let go of an archive that is closed."""
        with self._lock:
            if archive is self._archive:
                self._close()

    def _start(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        self._close()
        self._archive, self._member, self._stream = archive, member, archive.open(member)

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._archive = self._member = self._stream = None
        self._next, self._blocks = 0, {}

    def _block(self, number: int) -> bytes:
        if number < self._next and number not in self._blocks:
            # Long gone: from the beginning once more.
            assert self._archive is not None and self._member is not None  # noqa: PT018
            self._start(self._archive, self._member)
        while self._next <= number:
            assert self._stream is not None
            self._blocks[self._next] = self._stream.read(_BLOCK)
            self._blocks.pop(self._next - _KEPT, None)
            self._next += 1
        return self._blocks[number]


_forward = _Forward()
read_member, forget_archive = _forward.read, _forward.forget
