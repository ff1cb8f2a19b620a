"""Claims: files that say who works on what, so that processes on many machines share work through nothing but a folder.

A claim of a process of this machine counts as long as that process lives; one of another machine as long as it shows
life, by the time of its file.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path


class Claims:
    """The claims in a folder.

    Parameters
    ----------
    path : Path
    stale_after : float
        Seconds without a sign of life after which a claim of another machine counts for nothing.
    """

    def __init__(self, path: Path, stale_after: float) -> None:
        self.path, self.stale_after = path, stale_after

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Claim something, and show life until the block ends; False where another worker is at it."""
        claim = self.path / name
        if not self._take(claim):
            yield False
            return
        stop = threading.Event()
        beat = threading.Thread(target=self._beat, args=(claim, stop), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            stop.set()
            beat.join()
            claim.unlink(missing_ok=True)

    def _take(self, claim: Path) -> bool:
        for _ in range(2):
            try:
                descriptor = os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                if not self.abandoned(claim):
                    return False
                # One of several who see this gets it away. At worst a task is done twice, to the same bytes.
                gone = claim.with_name(f"{claim.name}.{_here()}.gone")
                with contextlib.suppress(FileNotFoundError):
                    claim.rename(gone)
                    gone.unlink()
            else:
                with os.fdopen(descriptor, "w") as file:
                    file.write(f"{socket.gethostname()} {os.getpid()} {_life(os.getpid())} {_machine()}\n")
                return True
        return False

    def abandoned(self, claim: Path) -> bool:
        """Whether nobody works on what is claimed any more."""
        with contextlib.suppress(OSError, ValueError):
            _, process, life, machine = claim.read_text().split()
            if machine == _machine() != _UNKNOWN:
                return _life(int(process)) != life
        return self.stale(claim, self.stale_after)

    def stale(self, file: Path, after: float) -> bool:
        """Whether a file has shown no life for so many seconds, by the clock of the file system."""
        own = self.path / f"now.{_here()}"
        try:
            own.touch()
            now = own.stat().st_mtime
            return now - file.stat().st_mtime > after
        except FileNotFoundError:
            return False
        finally:
            own.unlink(missing_ok=True)

    def _beat(self, claim: Path, stop: threading.Event) -> None:
        while not stop.wait(self.stale_after / 4):
            # Taken over: the other one's answer has the same bytes.
            with contextlib.suppress(OSError):
                os.utime(claim)

    def clear(self) -> None:
        """Remove what killed workers left behind."""
        for claim in self.path.glob("*"):
            with contextlib.suppress(OSError):
                if self.abandoned(claim):
                    claim.unlink()


_UNKNOWN = "unknown"


def _here() -> str:
    return f"{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}"


@functools.cache
def _machine() -> str:
    """Name of the machine since it was started, with the namespace of its process numbers: containers have their own.

    Unknown where the system does not say: then the time of the file is all that counts.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return _UNKNOWN


def _life(process: int) -> str:
    """When a process began, in ticks since the machine did: numbers are given again; "0" where it has ended."""
    try:
        # The name of the program is in parentheses, and may hold some.
        state, *rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "0"
    # A zombie works on nothing. Field 22 is the start; the state is the third.
    return "0" if state in ("Z", "X") else rest[18]
