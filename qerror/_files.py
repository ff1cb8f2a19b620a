"""Writing files so that a reader sees the old content or the new, never half of one."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ._check import shown


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    r"""Open a file for writing that appears under its name only when the block has ended well.

    The content goes to a temporary file in the same folder, which then replaces `path` in one step. On an
    error inside the block the temporary file is removed and `path` stays as it was.

    Raises
    ------
    ValueError
        If `mode` is neither of the two, or `path` is a folder or lies in none.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with atomic_open(folder / "table.txt", "w") as file:
    ...     _ = file.write("4 bits")
    >>> (folder / "table.txt").read_text()
    '4 bits'
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode must be 'wb' or 'w', got {mode!r}")
    # Through a symbolic link the link's target is replaced, not the link.
    target = Path(path).resolve()
    if target.is_dir():
        raise ValueError(f"path must name a file, got the folder {shown(target)}")
    if not target.parent.is_dir():
        raise ValueError(f"the folder of {shown(target)} does not exist; make it first")
    text = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        # The name that was asked for, not the temporary one.
        error.filename = str(target)
        raise
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_mode_for(target))
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            # A full disk is found by a write, which knows no name.
            error.filename = str(target)
        raise


# The umask can only be read by setting it: two threads that do so at once would leave the process without one.
_UMASK = threading.Lock()


def _mode_for(target: Path) -> int:
    """Permissions of the file that is replaced; for a new one what `open` would give, not mkstemp's 0600."""
    if target.exists():
        return target.stat().st_mode & 0o7777
    with _UMASK:
        umask = os.umask(0)
        os.umask(umask)
    return 0o666 & ~umask
