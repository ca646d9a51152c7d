"""How fast something goes, and how long it will still take."""

from time import monotonic
from typing import NamedTuple

_EVERY = 5.0
"""Seconds between two lines about it."""


class Said(NamedTuple):
    """What is said of it.

    Args:
        done: steps that are done.
        total: about how many there are.
        per_second: how many were done each second until now.
        seconds_left: how long the others will take at that rate.
    """

    done: int
    total: int
    per_second: int
    seconds_left: int


class Progress:
    """Says how far something is, every few seconds; it begins when this is made."""

    def __init__(self) -> None:
        self._began = self._said = monotonic()

    def said(self, done: int, total: int) -> Said | None:
        """What to say now; None where something was said a moment ago.

        Args:
            done: steps that are done.
            total: about how many there are.
        """
        now = monotonic()
        if now - self._said < _EVERY or not done:
            return None
        self._said = now
        rate = done / (now - self._began)
        return Said(done, total, round(rate), round((total - done) / rate))
