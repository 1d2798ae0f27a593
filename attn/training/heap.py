"""Keep freed memory in the process: on CPUs the allocator can cost more than the arithmetic.

With glibc's defaults a large tensor goes back to the system when it is freed, and the next one is faulted in
again page by page. A training loop allocates the same sizes over and over, as a GPU's caching allocator knows.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of mallopt, from malloc.h
_LARGEST = 2**31 - 1


def keep_heap() -> bool:
    """Tell glibc to keep freed memory for this process; returns whether it took effect (Linux with glibc only)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(
        mallopt(name, value)
        for name, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, 64 << 20))
    )
