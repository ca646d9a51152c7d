"""What is committed, as it happens: the log's batches, each as soon as it is acknowledged.

MongoDB keeps the latest batches for a minute at least. Whoever reads more slowly than that is told what was skipped;
nothing is kept for them here.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from time import monotonic, time

from pydantic_core import from_json

from gears.contract.redis_names import Names
from gears.in_mongo.log.batches import Acked, Logged
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis, read_at_once
from gears.in_redis.subscription import subscribed
from gears.progress.set_aside_entries import read_aside

_EVERY = 0.05
"""Seconds between two looks whether something was announced."""

_ASK_EVERY = 1.0
"""Without an announcement for this long, what is acknowledged is read, in case the subscription is dead."""

_AT_ONCE = 10
"""Batches that are read at a time: each may name a million characters of ids."""

_REMEMBERED = 10_000
"""How many announcements are remembered until their batches are read."""


class Outcome(StrEnum):
    """What a batch did about a document."""

    WRITTEN = "written"
    DELETED = "deleted"
    REFUSED = "refused"
    """MongoDB can't hold it: there is a dead letter, and Redis was rolled back."""
    ASIDE = "set aside"
    """MongoDB doesn't take it now: it is tried again."""
    OVERTAKEN = "overtaken"
    """Written or deleted; it was deleted by a later batch, before anybody could look."""


@dataclass(frozen=True, slots=True)
class Committed:
    """One document of a batch.

    Args:
        mapping: the mapping's prefix.
        id: the document's.
        outcome: what the batch did about it.
        version: the batch's.
        at: when the batch was sent to MongoDB, by the worker's clock.
        seconds: from the capture of the batch's last write until its commit was announced, by Redis's clock; None if
            that wasn't heard.
        reason: why it was refused.
    """

    mapping: str
    id: str
    outcome: Outcome
    version: int
    at: datetime
    seconds: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Batches that can't be told any more.

    Args:
        mapping: the mapping's prefix.
        above: they are above this version,
        upto: and up to this one.
        reason: why.
    """

    mapping: str
    above: int
    upto: int
    reason: str


News = Sequence[Committed | Skipped]
"""What is told of one batch."""


def outcome_of(version: int, deleted_at: int, *, refused: bool, aside: bool) -> Outcome:
    """What a batch did about a document that it names.

    Args:
        version: the batch's.
        deleted_at: the version at which the document was deleted last; 0 if it never was.
        refused: whether there is a dead letter of it from this batch.
        aside: whether it is set aside now.
    """
    if refused:
        return Outcome.REFUSED
    if deleted_at == version:
        return Outcome.DELETED
    if deleted_at > version:
        return Outcome.OVERTAKEN
    return Outcome.ASIDE if aside else Outcome.WRITTEN


class Follower:
    """One mapping, and how far it has been told.

    Args:
        redis: client with replies as bytes.
        store: the mapping's documents in MongoDB.
    """

    def __init__(self, redis: Redis, store: Store) -> None:
        self._redis = redis
        self._store = store
        self.names = Names(store.mapping.prefix)
        self._told: int | None = None
        self._announced: OrderedDict[str, float] = OrderedDict()
        self._clock_ahead = 0.0
        self._ask_at = float("-inf")

    def announced(self, said: bytes) -> None:
        """A batch was acknowledged just now."""
        committed = from_json(said)["w"]
        if committed:
            self._announced[committed[-1]] = time()
        while len(self._announced) > _REMEMBERED:
            self._announced.popitem(last=False)
        self._ask_at = float("-inf")

    async def news(self) -> AsyncGenerator[News, None]:
        """What was acknowledged since it was asked last, if it is time to ask; at first nothing."""
        if monotonic() < self._ask_at:
            return
        self._ask_at = monotonic() + _ASK_EVERY
        text, (seconds, microseconds) = await read_at_once(self._redis, ("GET", self.names.acked), ("TIME",))
        self._clock_ahead = time() - int(seconds) - int(microseconds) / 1e6
        acked = Acked.parse(text).version
        if self._told is None:
            self._told = acked
        while self._told < acked:
            batches = await self._store.log.next_batches(self._told, acked, _AT_ONCE)
            first = batches[0][1].version if batches else acked
            if self._told and not await self._store.log.reaches_back_to(self._told):
                reason = "this was too slow, and the log has forgotten them"
                yield [Skipped(self._prefix, self._told, first - 1, reason)]
            for at, batch in batches:
                if batch.ids != ():
                    yield await self._documents(at, batch)
                self._told = batch.version
            if len(batches) < _AT_ONCE:
                self._told = acked

    @property
    def _prefix(self) -> str:
        return self._store.mapping.prefix

    async def _documents(self, at: datetime, batch: Logged) -> News:
        if batch.ids is None:
            reason = "the log doesn't name its documents: too many, or one has a key that is no id"
            return [Skipped(self._prefix, batch.version - 1, batch.version, reason)]
        heard = self._announced.get(str(batch.upto))
        seconds = None if heard is None else max(0.0, heard - self._clock_ahead - batch.upto.id.ms / 1e3)
        deleted = await self._store.tombstones.versions(batch.ids)
        refused = await self._store.dead_letters.refused_in(batch.version, batch.ids)
        waiting = (await read_aside(self._redis, self.names)).items()
        aside = {entry.key for token, entry in waiting if token.id <= batch.upto.id}

        def told(document_id: str) -> Committed:
            outcome = outcome_of(
                batch.version,
                deleted.get(document_id, 0),
                refused=document_id in refused,
                aside=self._store.mapping.key(document_id).encode() in aside,
            )
            reason = refused.get(document_id, "")
            return Committed(self._prefix, document_id, outcome, batch.version, at, seconds, reason)

        return [told(document_id) for document_id in batch.ids]


class Tail:
    """What is committed from now on.

    Args:
        redis: client with replies as bytes.
        stores: the mappings' documents in MongoDB.
    """

    def __init__(self, redis: Redis, stores: Sequence[Store]) -> None:
        self._redis = redis
        self._followers: Mapping[bytes, Follower] = {
            follower.names.channel.encode(): follower for follower in (Follower(redis, store) for store in stores)
        }

    async def follow(self) -> AsyncGenerator[News, None]:
        """What is committed, for ever; where it raises, it goes on from there when it is called again.

        First comes nothing, as soon as all that is committed from then on is told.

        Raises:
            MongoError, RedisError, RedisAway: a server is away.
        """
        channels = [follower.names.channel for follower in self._followers.values()]
        async with subscribed(self._redis, channels) as subscription:
            subscription.listen(lambda channel, said: self._followers[channel].announced(said))
            following = False
            while True:
                for follower in self._followers.values():
                    async for news in follower.news():
                        yield news
                if not following:
                    following = True
                    yield []
                await subscription.lost(within=_EVERY)
