"""BSON that is put together piece by piece, measured, and kept where somebody wants it."""

import struct

from gears.errors import Refused

BSON_MAX_BYTES = 16 * 1024 * 1024
"""https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-BSON-Document-Size"""

MOST_BYTES = BSON_MAX_BYTES - 64
"""What is left of it beside the `_id` that MongoDB may add."""

_LENGTH = b"\0\0\0\0"
"""The room for a length, which is known in the end."""


class MeasuredBson:
    """One document.

    Args:
        keep: whether to keep it, not just measure it.
    """

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self.size = 0
        """Its bytes, as far as it has come."""
        self.kept = bytearray()
        """What is kept of it."""

    def put(self, data: bytes) -> None:
        """Put this behind what there is.

        Raises:
            Refused: it is too much.
        """
        self.size += len(data)
        if self.size > MOST_BYTES:
            raise Refused(
                f"the document takes {self.size:,} bytes as BSON or more; MongoDB holds at most {BSON_MAX_BYTES:,}"
            )
        if self.keep:
            self.kept += data

    def begin(self, head: bytes = b"") -> int:
        """Something that has a length begins, behind this; returns where."""
        self.put(head)
        begin = len(self.kept)
        self.put(_LENGTH)
        return begin

    def end(self, begin: int, *, counting_itself: bool = True) -> None:
        """It ends here.

        Args:
            begin: where it began.
            counting_itself: whether the length counts its own bytes, too, as those of all but strings do.
        """
        if self.keep:
            length = len(self.kept) - begin - (0 if counting_itself else len(_LENGTH))
            struct.pack_into("<i", self.kept, begin, length)
