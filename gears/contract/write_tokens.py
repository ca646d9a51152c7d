"""Tokens: which entry a write has."""

from typing import NamedTuple, Self

_SEQ_MAX_BITS, _MS_MAX_BITS = 32, 43


class EntryId(NamedTuple):
    """The id of a sync stream entry, ordered as Redis orders them."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Parse `ms-seq`.

        Raises:
            ValueError: this is no entry id.
        """
        text = text.decode() if isinstance(text, bytes) else text
        ms, separator, seq = text.partition("-")
        if not (separator and ms.isascii() and ms.isdigit() and seq.isascii() and seq.isdigit()):
            raise ValueError(f"{text!r} is not of the form <milliseconds>-<sequence>")
        entry_id = cls(int(ms), int(seq))
        if entry_id.seq >> _SEQ_MAX_BITS or entry_id.ms >> _MS_MAX_BITS:
            raise ValueError(f"{text!r} is out of range")
        return entry_id

    @property
    def next(self) -> "EntryId":
        """The lowest id of a stream entry above this one."""
        return EntryId(self.ms, self.seq + 1)

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


ZERO = EntryId(0, 0)


class Token(NamedTuple):
    """Which entry a write has, for ever: Redis gives out an id again once it has forgotten it, but no life.

    Args:
        life: the life in which it was captured: letters and digits; empty for entries of before there were lives.
        id: the entry's id.
    """

    life: str
    id: EntryId

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Parse what `str` makes of one.

        Raises:
            ValueError: this is no token.
        """
        text = text.decode() if isinstance(text, bytes) else text
        life, dot, entry_id = text.rpartition(".")
        if dot and not (life.isascii() and life.isalnum()):
            raise ValueError(f"{text!r} is not of the form <life>.<milliseconds>-<sequence>")
        return cls(life, EntryId.parse(entry_id))

    def __str__(self) -> str:
        return f"{self.life}.{self.id}" if self.life else str(self.id)


NOTHING = Token("", ZERO)
