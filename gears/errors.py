"""What can go wrong, one class per thing a caller can react to. All exceptions of ours have one base."""


class WritethroughError(Exception):
    """The base of all exceptions of ours, here and elsewhere."""


class ConfigError(WritethroughError, ValueError):
    """A setting can't be used; the message names it and the remedy."""


class RedisAway(WritethroughError):
    """Redis could not be reached; nothing was sent, so nothing was written."""


class OutcomeUnknown(WritethroughError):
    """The connection broke after the command was sent, or Redis ended it midway: it may have been run or not."""


class CaptureMissing(WritethroughError):
    """The recipe isn't installed (or is of another version); nothing was written."""


class Unchecked(WritethroughError):
    """Redis was started or emptied, and no committer has looked yet whether it has forgotten anything."""


class BacklogFull(WritethroughError):
    """The sync stream holds as many uncommitted entries as allowed; nothing was written."""


class ForeignKey(WritethroughError):
    """The key holds something that isn't a JSON document; it was left alone."""


class RedisRefused(WritethroughError):
    """Redis answered the write with an error (out of memory, read-only, ...); nothing was written."""


class PreconditionFailed(WritethroughError):
    """The key isn't in the state the write asked for; nothing was written."""


class Refused(WritethroughError, ValueError):
    """MongoDB can't hold this document.

    Args:
        reason: what is wrong and, where it applies, which field.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotAnId(Refused):
    """No document of the mapping has an id such as this, nor ever will."""


class MalformedJson(Refused):
    """The text is no JSON at all."""


class Unfit(WritethroughError):
    """Documents can't be kept in the collection as it is; the message says why, and what mends it."""


class DuplicateIds(Unfit):
    """The unique index on the id field can't be built: documents share an id; the message names some."""


class Rewound(WritethroughError):
    """Redis has forgotten what it knew a moment ago; what was in flight is not acknowledged."""


class MongoWasPutBack(WritethroughError):
    """MongoDB holds less than it had acknowledged: somebody has put a backup back."""


class LeaseLost(WritethroughError):
    """Another committer holds this mapping's lease now; what was in flight is not acknowledged."""


class CouldNotCompare(WritethroughError):
    """Redis and MongoDB can't be compared now, since commits are held up; the message says why."""


def without_secrets(url: str, error: Exception) -> str:
    """What to say of a URL that can't be used; what libraries say may quote a part of the password."""
    if "@" not in url:
        return str(error)
    return "percent-encode all but letters and digits in user and password, and see that port and options are right"
