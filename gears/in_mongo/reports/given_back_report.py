"""What is known of a mapping's rewinds, as it is kept in MongoDB and shown."""

from pydantic import BaseModel

from gears.process.timestamps import Moment


class RewindReport(BaseModel):
    """Redis had forgotten what was committed."""

    mapping: str
    found_at: Moment
    watermark: str
    """The last entry that Redis knew to be committed."""
    checkpoint: str
    """The last entry that was committed."""
    documents: int = 0
    """Documents above the watermark."""
    deletes: int = 0
    """Deletes above it."""
    restored_at: Moment | None = None
    """When Redis had been given back what it lost; None when it wasn't."""
    restored: int = 0
    """Keys that were given back; those that were written again were not."""


class Rewinds(BaseModel):
    """All rewinds of a mapping in a few words."""

    count: int
    last: RewindReport | None
