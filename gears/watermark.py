"""Waiting for the watermark: one subscription a process wakes every request whose write was committed."""

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import Container, Iterable
from itertools import count
from typing import Any

import anyio
import structlog
from pydantic_core import from_json, to_json

from gears.aside import read_aside
from gears.errors import OutcomeUnknown, RedisAway, Refused
from gears.gaps import REMEMBERED_GAPS, Gap, gaps_of
from gears.mapping import Mapping
from gears.redis import AWAY, Redis, RedisError, server_run
from gears.refusals import REMEMBERED_REFUSALS, refusals_from
from gears.stream import ZERO, EntryId, Names
from gears.subscription import Subscription, subscribed

_POLL_SECONDS = 1.0
"""Without a message for this long, the watermark is read, in case the subscription is dead without knowing."""

log = structlog.get_logger()


def encode_commit(
    watermark: EntryId,
    refused: Iterable[tuple[EntryId, str]],
    gaps: Iterable[Gap],
    *,
    aside: Iterable[EntryId] = (),
    settled: Iterable[EntryId] = (),
) -> bytes:
    """What the committer publishes.

    Args:
        watermark: the watermark.
        refused: on the way to it, the refused entries with reasons.
        gaps: gaps on the way.
        aside: on the way to it, or before, the entries that are set aside.
        settled: the entries that are no longer.
    """
    refusals = [[str(entry_id), reason] for entry_id, reason in refused]
    commit: dict[str, Any] = {"w": str(watermark), "r": refusals, "g": [str(gap) for gap in gaps]}
    return to_json(commit | {"a": [str(i) for i in aside], "s": [str(i) for i in settled]})


class Watermark:
    """How far one mapping is committed, as far as this process knows, and who waits for more."""

    def __init__(self) -> None:
        self.position = ZERO
        self._waiting: list[tuple[EntryId, int, asyncio.Future[None]]] = []
        self._tiebreak = count()
        self._refused: OrderedDict[EntryId, str] = OrderedDict()
        self._gaps: deque[Gap] = deque(maxlen=REMEMBERED_GAPS)
        self._aside: dict[EntryId, asyncio.Future[None]] = {}

    async def reached(self, entry_id: EntryId) -> None:
        """Return when everything up to this entry is committed, refused or set aside, and this entry is not set aside.

        Raises:
            Refused: this entry's document was refused.
            OutcomeUnknown: Redis was restarted or emptied meanwhile, and may have forgotten the entry.
        """
        if self.position < entry_id:
            reached = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (entry_id, next(self._tiebreak), reached))
            await reached
        while entry_id in self._aside:
            await asyncio.shield(self._aside[entry_id])
        if any(gap.after < entry_id < gap.before for gap in self._gaps):
            raise OutcomeUnknown("Redis was emptied before the write was confirmed, and has lost it")
        if entry_id in self._refused:
            raise Refused(self._refused[entry_id])

    @property
    def awaited(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting or self._aside)

    def set_aside(self, aside: Iterable[EntryId]) -> None:
        """These entries are set aside."""
        for entry_id in aside:
            if entry_id not in self._aside:
                self._aside[entry_id] = asyncio.get_running_loop().create_future()

    def settle(self, settled: Iterable[EntryId]) -> None:
        """These entries are no longer."""
        for entry_id in settled:
            if (waiting := self._aside.pop(entry_id, None)) is not None and not waiting.done():
                waiting.set_result(None)

    @property
    def aside(self) -> Iterable[EntryId]:
        """The entries that are set aside."""
        return self._aside.keys()

    def settle_others(self, aside: Container[EntryId]) -> None:
        """No entries but these are set aside."""
        self.settle([entry_id for entry_id in self._aside if entry_id not in aside])

    def advance(self, position: EntryId, refused: Iterable[tuple[EntryId, str]], gaps: Iterable[Gap]) -> None:
        """Take over what the committer said; never goes back."""
        self._gaps.extend(gap for gap in gaps if gap not in self._gaps)
        for entry_id, reason in refused:
            self._refused[entry_id] = reason
        while len(self._refused) > REMEMBERED_REFUSALS:
            self._refused.popitem(last=False)
        self.position = max(self.position, position)
        while self._waiting and self._waiting[0][0] <= self.position:
            reached = heapq.heappop(self._waiting)[2]
            if not reached.done():  # whoever waited may have gone away
                reached.set_result(None)

    def restart(self, position: EntryId) -> None:
        """Take over what a restarted Redis knows, which may be less, and wake all who wait: theirs may be lost."""
        self.position = position
        self._refused.clear()
        self._gaps.clear()
        for reached in (*(waiting for _, _, waiting in self._waiting), *self._aside.values()):
            if not reached.done():
                reached.set_exception(
                    OutcomeUnknown("Redis was restarted before the write was confirmed, and may have lost it")
                )
                reached.exception()  # nobody may wait for what is set aside
        self._waiting.clear()
        self._aside.clear()


class Watermarks:
    """The watermarks of all mappings, kept up to date by `run`."""

    def __init__(self, redis: Redis, mappings: Iterable[Mapping]) -> None:
        self._redis = redis
        self._names = {mapping.prefix: Names(mapping.prefix) for mapping in mappings}
        self._by_prefix = {prefix: Watermark() for prefix in self._names}
        self._run = b""
        self._following = anyio.Event()
        self._quiet = True
        self._by_channel = {names.channel.encode(): self._by_prefix[prefix] for prefix, names in self._names.items()}

    def __getitem__(self, prefix: str) -> Watermark:
        return self._by_prefix[prefix]

    @property
    def are_followed(self) -> bool:
        """Whether commits are followed now."""
        return self._following.is_set()

    async def followed(self) -> None:
        """Return when commits are followed; what is written before that may be found in doubt afterwards."""
        await self._following.wait()

    async def went_back(self, prefix: str, entry_id: EntryId) -> None:
        """Take note of an entry that was added later than others with higher ids: Redis has forgotten its stream.

        Raises:
            OutcomeUnknown: Redis doesn't say how far it is committed now.
        """
        if self[prefix].position < entry_id:
            return  # noted already
        try:
            position = await self._redis.get(self._names[prefix].watermark)
        except AWAY as error:
            raise OutcomeUnknown(str(error)) from error
        if self[prefix].position >= entry_id:
            self[prefix].restart(EntryId.parse(position) if position else ZERO)

    async def run(self) -> None:
        """Follow the commits until cancelled, across lost connections."""
        lost = False
        while True:
            try:
                async with subscribed(self._redis, [names.channel for names in self._names.values()]) as subscription:
                    await self._meet_server()
                    await self._read_all()
                    if lost:
                        log.info("following the watermark again")
                        lost = False
                    self._following.set()
                    await self._follow(subscription)
            except (*AWAY, RedisAway, RedisError) as error:
                self._following = anyio.Event()
                if not lost:
                    log.warning("lost the watermark subscription; trying again", error=str(error))
                    lost = True
                await anyio.sleep(0.2)

    async def _meet_server(self) -> None:
        run = await server_run(self._redis)
        if self._run and run != self._run:
            for prefix, names in self._names.items():
                position = await self._redis.get(names.watermark)
                self._by_prefix[prefix].restart(EntryId.parse(position) if position else ZERO)
        self._run = run

    async def _follow(self, subscription: Subscription) -> None:
        subscription.listen(self._take)
        while True:
            self._quiet = True
            await subscription.lost(within=_POLL_SECONDS)
            if self._quiet and any(watermark.awaited for watermark in self._by_prefix.values()):
                await self._read_all()

    def _take(self, channel: bytes, data: bytes) -> None:
        self._quiet = False
        commit = from_json(data)
        refused = [(EntryId.parse(entry_id), reason) for entry_id, reason in commit["r"]]
        gaps = [Gap.parse(text.encode()) for text in commit["g"]]
        watermark = self._by_channel[channel]
        watermark.set_aside(map(EntryId.parse, commit["a"]))
        watermark.advance(EntryId.parse(commit["w"]), refused, gaps)
        watermark.settle(map(EntryId.parse, commit["s"]))

    async def _read_all(self) -> None:
        for prefix, names in self._names.items():
            watermark = self._by_prefix[prefix]
            # The watermark first: a refusal is recorded before the watermark moves past it.
            position = await self._redis.get(names.watermark)
            aside = await read_aside(self._redis, names)
            refused = await refusals_from(self._redis, names, min([watermark.position, *watermark.aside]))
            gaps = await gaps_of(self._redis, names)
            watermark.set_aside(aside)
            watermark.advance(EntryId.parse(position) if position else ZERO, refused, gaps)
            watermark.settle_others(aside)
