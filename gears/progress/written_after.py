"""Whether a write came after what MongoDB holds, as its entry tells: by its life, and its id in the same life."""

from collections.abc import Sequence

from gears.contract.entries import Entry
from gears.contract.write_tokens import Token


class WrittenAfter:
    """Compares entries with what a batch knew.

    Args:
        life: the present life; empty where none was begun yet.
        lives: the lives that committers have met, in their order.
    """

    def __init__(self, life: str, lives: Sequence[str]) -> None:
        self._life = life
        self._order = {life: n for n, life in enumerate(lives)}

    def comes_after(self, entry: Entry, newest: Token) -> bool:
        """Whether an entry tells of a write that came after a batch read its states, and not before.

        Args:
            entry: the entry.
            newest: the newest entry that the batch knew.
        """
        if entry.life in (self._life, newest.life):
            return entry.life == self._life or entry.id > newest.id
        if entry.life in self._order and newest.life in self._order:
            return self._order[entry.life] > self._order[newest.life]
        return _began(entry.life) > _began(newest.life)


def _began(life: str) -> str:
    """When a life began, as its name tells; see the recipes."""
    return life[8:21]
