"""Where the bytes of a file come from: a disk, or a URL of which only the ranges that are needed are fetched."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import io
import os
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .._check import plain, shown

# Bytes at the beginning of a remote file that are fetched together.
_START = 64


class ReadError(ValueError):
    """Bytes of a file could not be fetched now, which says nothing about what they hold."""


class Source(Protocol):
    """A file that can be read in ranges of bytes."""

    @property
    def name(self) -> str:
        """Path or URL."""

    @property
    def size(self) -> int:
        """Bytes that it has."""

    @property
    def stamp(self) -> str:
        """What changes when the content does: its size with its time or etag."""

    def read(self, begin: int, end: int) -> NDArray[np.uint8]:
        """These bytes."""

    def whole(self) -> NDArray[np.uint8]:
        """All bytes, mapped where that can be."""

    def open(self) -> IO[bytes]:
        """A stream that can be sought in."""


@dataclasses.dataclass(frozen=True)
class LocalFile:
    """A file of a file system."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def size(self) -> int:
        """Bytes that it has now."""
        return self.path.stat().st_size

    @property
    def stamp(self) -> str:
        """Size and time of the last change."""
        found = self.path.stat()
        return f"{found.st_size}-{found.st_mtime_ns}"

    def read(self, begin: int, end: int) -> NDArray[np.uint8]:
        """These bytes, as an array of their own: a map would keep what was read in memory."""
        content = np.fromfile(self.path, np.uint8, end - begin, offset=begin)
        if content.size != end - begin:
            raise ReadError(f"{shown(self.path)} has become shorter while it was read; start again")
        return content

    def whole(self) -> NDArray[np.uint8]:
        """A read-only map."""
        # np.memmap refuses an empty file.
        return np.memmap(self.path, np.uint8, "r") if self.size else np.empty(0, np.uint8)

    def open(self) -> IO[bytes]:
        """A stream."""
        return self.path.open("rb")


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL, read through fsspec."""

    url: str

    @property
    def name(self) -> str:
        """The URL."""
        return self.url

    @functools.cached_property
    def _place(self) -> tuple[Any, str]:
        fsspec = load_extra("fsspec", "remote", f"reading {shown(self.url)}")
        try:
            fs, path = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise ValueError(f"{shown(self.url)} cannot be read: {plain(str(error), 120)}") from None
        return fs, path

    @functools.cached_property
    def _info(self) -> dict[str, Any]:
        fs, path = self._place
        with _words(self.url):
            found: dict[str, Any] = fs.info(path)
        if found.get("size") is None:
            raise ValueError(f"{shown(self.url)} does not say how long it is, so parts of it cannot be read; fetch it")
        return found

    @property
    def size(self) -> int:
        """Bytes that it has."""
        return int(self._info["size"])

    @property
    def stamp(self) -> str:
        """Size and etag, or the time of the last change where there is none."""
        known = (self._info.get(key) for key in ("ETag", "etag", "mtime", "LastModified", "last_modified"))
        return f"{self.size}-{next((mark for mark in known if mark), '')}"

    def read(self, begin: int, end: int) -> NDArray[np.uint8]:
        """These bytes and no others."""
        if begin == end:
            return np.empty(0, np.uint8)
        if end <= min(_START, self.size):
            # What a file is and how long its header is are two questions to one answer.
            return self._start[begin:end]
        return self._fetched(begin, end)

    @functools.cached_property
    def _start(self) -> NDArray[np.uint8]:
        return self._fetched(0, min(_START, self.size))

    def _fetched(self, begin: int, end: int) -> NDArray[np.uint8]:
        fs, path = self._place
        with _words(self.url):
            content = np.frombuffer(fs.cat_file(path, start=begin, end=end), np.uint8)
        if content.size != end - begin:
            raise ReadError(f"{shown(self.url)} gave {content.size} bytes of {end - begin} that were asked for")
        return content

    def whole(self) -> NDArray[np.uint8]:
        """All bytes, fetched."""
        return self.read(0, self.size)

    def open(self) -> IO[bytes]:
        """Its whole content in memory: readers of compressed files go back and forth."""
        return io.BytesIO(self.whole().tobytes())


class _words:
    """Turn what a remote file system raises into one line that names the URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FileNotFoundError):
            raise ReadError(f"there is no file {shown(self._url)}; check the URL") from None
        if isinstance(error, Exception) and not isinstance(error, ValueError):
            reason = plain(f"{type(error).__name__} {error}".partition("\n")[0], 120)
            raise ReadError(f"{shown(self._url)} cannot be read: {reason}") from None


def is_url(path: Any) -> bool:
    """Whether a path is a URL: a scheme and two slashes.

    Examples
    --------
    >>> is_url("s3://bucket/model.safetensors"), is_url("folder/model.safetensors")
    (True, False)
    """
    scheme, mark, _ = path.partition("://") if isinstance(path, str) else ("", "", "")
    return bool(mark) and scheme.replace("+", "").replace("-", "").isalnum()


def source_of(path: str | os.PathLike[str]) -> Source:
    """The file of a path or URL; it is looked at only when it is read."""
    return RemoteFile(path) if isinstance(path, str) and is_url(path) else LocalFile(Path(path))


def load_extra(module: str, extra: str, purpose: str) -> Any:
    """Import an optional package when it is needed.

    Raises
    ------
    ValueError
        With what to install, where it is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        needed = f"{purpose} needs the package {module.partition('.')[0]}"
        raise ValueError(f"{needed}: pip install 'qerror[{extra}]'") from None
