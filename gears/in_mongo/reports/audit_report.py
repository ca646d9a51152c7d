"""What an audit found, as it is kept in MongoDB and shown."""

from pydantic import BaseModel, Field, computed_field

from gears.process.timestamps import Moment

MAX_EXAMPLES = 10
"""How many examples of each kind a report holds."""


class Example(BaseModel):
    """One key that isn't equal on both sides."""

    key: str
    redis: str
    """The sync stream's last entry id when the key was compared: Redis's state of the key is that of this time."""
    mongodb: str | None
    """The version of what MongoDB holds, or of its tombstone, as an entry id; None without either."""
    fields: list[str] = []
    """Dotted names of fields that differ; not all of them."""
    reason: str = ""
    """Why it could not be repaired."""


class AuditReport(BaseModel):
    """What one audit of one mapping found.

    All counts are of keys as they were found, before any repair.
    """

    mapping: str
    started_at: Moment
    because: str = ""
    """Why it was made: what made the reconciler sweep, or the command that asked for it."""
    seconds: float = 0.0
    documents_per_second: float = 0.0
    compared: int = 0
    """The sum of the six kinds and `unsettled`."""
    equal: int = 0
    missing: int = 0
    stale: int = 0
    ahead: int = 0
    cold: int = 0
    foreign: int = 0
    legacy: int = 0
    """MongoDB documents without a version, whatever else they are."""
    repaired: int = 0
    """Missing, stale and ahead keys that are equal now."""
    refused: int = 0
    """Missing and stale keys that MongoDB can't hold; see the dead letters."""
    unsettled: int = 0
    """Keys that changed whenever they were looked at."""
    deleted: int = 0
    """Cold documents that were deleted, as `WT_COLD=delete` asks."""
    drift_since: Moment | None = None
    """When the first of those reports began that have found drift and left some, this one included, without one between
    them that left none."""
    warnings: list[str] = []
    """What was not done, and why."""
    examples: dict[str, list[Example]] = Field(default_factory=dict)
    """At most `MAX_EXAMPLES` of each kind but `equal`."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def left(self) -> int:
        """Missing, stale and ahead keys that were not repaired."""
        return self.missing + self.stale + self.ahead - self.repaired
