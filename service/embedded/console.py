"""Lines for whoever looks at the terminal; a terminal that has gone away is no reason to stop working."""

import sys
from contextlib import suppress


def say(text: str) -> None:
    """Write a line to standard output."""
    with suppress(OSError, ValueError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def complain(text: str) -> None:
    """Write a line to standard error."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
