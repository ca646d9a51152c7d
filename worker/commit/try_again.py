"""Trying a commit again until MongoDB takes it: how soon, with how much of it, and what is said meanwhile."""

from collections.abc import Callable, Collection

import anyio
from pymongo.errors import PyMongoError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential, wait_random

from gears.in_mongo.client import MongoError
from gears.in_mongo.errors.describe import held_up
from gears.in_mongo.errors.what_errors_mean import Cause, judge
from worker.reporter import Reporter

_BACKOFF = wait_exponential(multiplier=0.4, max=3) + wait_random(0, 0.1)
"""So that no error makes more than some twenty commands a second."""

_HURRY = 0.2
"""Seconds before half of a batch is tried, where a document is looked for that MongoDB can't read, or not in time."""

_LARGEST = 20_000
"""Documents up to which a batch grows, should it depend on others: most likely they depend on what follows them."""

TOGETHER = 3
"""How often a batch is tried as a whole before what fails in it is set aside, or looked for."""


def tries(reporter: Reporter, pause: Callable[[RetryCallState], float] = _BACKOFF) -> AsyncRetrying:
    """Attempts at something until no `MongoError` comes of it, however long that takes.

    Args:
        reporter: where to say that it is tried again.
        pause: seconds until the next attempt.
    """
    first = ""

    def say(state: RetryCallState) -> None:
        nonlocal first
        error = state.outcome.exception() if state.outcome else None
        said = held_up(error) if error else "MongoDB: not reached"
        if state.attempt_number == 1:
            first = said
        reporter.retrying(said if said == first else f"{first}; then {said}")

    return AsyncRetrying(
        retry=retry_if_exception_type(MongoError),
        wait=pause,
        before_sleep=say,
        sleep=anyio.sleep,
        reraise=True,
    )


class Amount:
    """How much is tried at a time.

    Args:
        most: documents in a batch, to begin with.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        """Documents in a batch now."""
        self.needed: set[bytes] = set()
        """Other keys whose states the batch must tell, too."""
        self._hurry = False

    def trying(self) -> None:
        """The next attempt begins."""
        self._hurry = False

    def grow(self, needed: Collection[bytes]) -> None:
        """It can't be done without the states of these keys, if any, or must be done again."""
        self.needed |= set(needed)
        self.most = max(self.most, min(self.most * 2, _LARGEST))

    def shrink(self, error: PyMongoError, keys: int, *, tries: int) -> None:
        """Take half of it where the error may be of one document.

        Args:
            error: what came of it.
            keys: how many it had.
            tries: how often it was tried.
        """
        cause = judge(error).cause
        likely = cause in (Cause.SLOW, Cause.UNREADABLE)
        if likely or (cause is Cause.COMMAND and tries >= TOGETHER):
            self.most = max(1, keys // 2)
        self._hurry = likely and self.most > 1

    def pause(self, state: RetryCallState) -> float:
        """Seconds until the next attempt."""
        return _HURRY if self._hurry else _BACKOFF(state)
