"""Keep freed memory in the process, for training on the CPU.

A step frees what it allocated, tens of megabytes in blocks of a few; glibc gives them back to the system, and the next
step pays for every page again. Kept, a step of MobileNetV3-Small takes about three quarters of the time (measured with
`benchmarks/heap.py`).
"""

from __future__ import annotations

import ctypes
import functools
import sys

# <malloc.h>
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 32 << 20  # bytes: the most that glibc takes as mmap threshold; larger blocks are mapped each time
_PAD = 64 << 20


@functools.cache
def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed; True where it took it (glibc), False where there is no such call.

    The process then holds the most memory it ever needed at once until it ends. Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    settings = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _PAD))
    taken = [mallopt(parameter, value) == 1 for parameter, value in settings]  # all are asked, whatever one says
    return all(taken)
