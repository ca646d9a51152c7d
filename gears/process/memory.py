"""Memory that large documents took is given back to the system as soon as it is free."""

import ctypes
from contextlib import suppress

_M_MMAP_THRESHOLD = -3
"""https://man7.org/linux/man-pages/man3/mallopt.3.html"""

_LARGE = 256 * 1024


def give_back_large_blocks() -> None:
    """Keep glibc from raising its threshold for this when large blocks are freed; elsewhere this does nothing."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
