"""What is freed stays with the process: giving it back and asking for it again is half of the work in a Dask worker."""

from __future__ import annotations

import ctypes
import functools
import os

# Names that glibc's mallopt has for the two limits, and the largest value that it takes for the second.
_TRIM, _MMAP, _LARGEST_MMAP = -1, -3, 32 << 20


@functools.cache
def keep_freed_memory() -> bool:
    """Undo what Dask's nanny sets for the allocator; whether that was needed and done.

    With MALLOC_TRIM_THRESHOLD_ set glibc no longer adapts the size from which it maps memory anew for each array: the
    same work then takes twice the time, most of it in page faults. Set while the process runs it counts from then on.
    """
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_TRIM, 1 << 30)) and bool(mallopt(_MMAP, _LARGEST_MMAP))
