"""Waiting for commits: one subscription a process wakes every request whose write was committed."""

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator, Sequence
from collections.abc import Mapping as Dict
from contextlib import contextmanager
from itertools import count
from typing import Any

import anyio
import structlog
from pydantic_core import from_json, to_json

from gears.contract.entries import decode_entry
from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names, life_in, life_of_memory
from gears.contract.refusal import REMEMBERED_REFUSALS
from gears.contract.write_tokens import ZERO, EntryId, Token
from gears.errors import OutcomeUnknown, RedisAway, Refused
from gears.in_mongo.log.batches import Acked
from gears.in_redis.client import FAILED, Redis, read_at_once, server_run
from gears.in_redis.describe_errors import describe
from gears.in_redis.subscription import Subscription, subscribed
from gears.progress.refusals import refusals_from

_POLL_SECONDS = 1.0
"""Without a message for this long, what is acknowledged is read, in case the subscription is dead without knowing."""

_LIVES = 100
"""How many lives are remembered, the latest."""

log = structlog.get_logger()


def encode_commit(
    life: str,
    committed: Iterable[Token],
    refused: Dict[Token, str],
    *,
    aside: Iterable[Token] = (),
    settled: Iterable[Token] = (),
) -> bytes:
    """What the committer publishes.

    Args:
        life: the present life.
        committed: of each life in the batch, its last entry.
        refused: the refused entries with reasons.
        aside: the entries that are set aside.
        settled: the entries that are no longer.
    """
    tokens = {"w": committed, "a": aside, "s": settled}
    refusals = [[str(token), reason] for token, reason in refused.items()]
    return to_json({"l": life, "r": refusals} | {name: [str(token) for token in some] for name, some in tokens.items()})


class Watermark:
    """How far one mapping is committed, as far as this process knows, and who waits for more."""

    def __init__(self) -> None:
        self.life = ""
        """The present life, as far as is known."""
        self.is_checked = False
        """Whether Redis has certainly forgotten nothing: a worker has looked, in the present life."""
        self._upto: OrderedDict[str, EntryId] = OrderedDict()
        self._waiting: dict[str, list[tuple[EntryId, int, asyncio.Future[None]]]] = {}
        self._tiebreak = count()
        self._refused: OrderedDict[Token, str] = OrderedDict()
        self._aside: dict[Token, asyncio.Future[None]] = {}

    async def reached(self, token: Token) -> None:
        """Return when this entry is committed, or refused, and not set aside.

        Raises:
            Refused: its document was refused.
            OutcomeUnknown: Redis was restarted or emptied meanwhile, and may have forgotten it.
        """
        if self._upto.get(token.life, ZERO) < token.id:
            reached = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting.setdefault(token.life, []), (token.id, next(self._tiebreak), reached))
            await reached
        while token in self._aside:
            await asyncio.shield(self._aside[token])
        if token in self._refused:
            raise Refused(self._refused[token])

    def has_reached(self, token: Token) -> bool:
        """Whether `reached` would return, or raise, at once."""
        return self._upto.get(token.life, ZERO) >= token.id and token not in self._aside

    @property
    def awaited(self) -> list[Token]:
        """What is waited for."""
        waiting = [Token(life, one[0]) for life, some in self._waiting.items() for one in some]
        return [*waiting, *self._aside]

    def set_aside(self, aside: Iterable[Token]) -> None:
        """These entries are set aside."""
        for token in aside:
            if token not in self._aside:
                self._aside[token] = asyncio.get_running_loop().create_future()

    def settle(self, settled: Iterable[Token]) -> None:
        """These entries are no longer."""
        for token in settled:
            if (waiting := self._aside.pop(token, None)) is not None and not waiting.done():
                waiting.set_result(None)

    def settle_others(self, aside: Container[Token]) -> None:
        """No entries but these are set aside."""
        self.settle([token for token in self._aside if token not in aside])

    @property
    def earliest(self) -> EntryId:
        """The lowest id that is waited for."""
        return min((token.id for token in self.awaited), default=self._upto.get(self.life, ZERO))

    def advance(self, committed: Iterable[Token], refused: Iterable[tuple[Token, str]]) -> None:
        """Take over what the committer said; never goes back."""
        for token, reason in refused:
            self._refused[token] = reason
        while len(self._refused) > REMEMBERED_REFUSALS:
            self._refused.popitem(last=False)
        for life, entry_id in committed:
            position = self._upto[life] = max(entry_id, self._upto.pop(life, ZERO))
            waiting = self._waiting.get(life, [])
            while waiting and waiting[0][0] <= position:
                reached = heapq.heappop(waiting)[2]
                if not reached.done():  # whoever waited may have gone away
                    reached.set_result(None)
            if not waiting:
                self._waiting.pop(life, None)
        while len(self._upto) > _LIVES:
            self._upto.popitem(last=False)

    def give_up(self, kept: Container[Token] = ()) -> None:
        """Wake all who wait, save for these entries: theirs may be lost."""
        unknown = [self._aside.pop(token) for token in list(self._aside) if token not in kept]
        for life, some in list(self._waiting.items()):
            unknown += [reached for entry_id, _, reached in some if Token(life, entry_id) not in kept]
            left = [one for one in some if Token(life, one[0]) in kept]
            heapq.heapify(left)
            if left:
                self._waiting[life] = left
            else:
                del self._waiting[life]
        for reached in unknown:
            if not reached.done():
                reached.set_exception(
                    OutcomeUnknown(
                        "Redis was restarted or emptied before the write was confirmed, and may have lost it"
                    )
                )
                reached.exception()  # nobody may wait for what is set aside


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

    async def run(self) -> None:
        """Follow the commits until cancelled, across lost connections."""
        lost = False
        while True:
            try:
                async with subscribed(self._redis, [names.channel for names in self._names.values()]) as subscription:
                    await self._meet_server()
                    await self._read_all()
                    await self._see_checked()
                    if lost:
                        log.info("following commits again")
                        lost = False
                    self._following.set()
                    with self._unfollowed_afterwards():
                        await self._follow(subscription)
            except (*FAILED, RedisAway) as error:
                if not lost:
                    log.warning("lost the subscription to commits; trying again", error=describe(error))
                    lost = True
                await anyio.sleep(0.2)

    @contextmanager
    def _unfollowed_afterwards(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._following = anyio.Event()
            for watermark in self._by_prefix.values():
                watermark.is_checked = False

    async def _meet_server(self) -> None:
        run = await server_run(self._redis)
        if self._run and run != self._run:
            for watermark in self._by_prefix.values():
                watermark.give_up()
        self._run = run

    async def _follow(self, subscription: Subscription) -> None:
        subscription.listen(self._take)
        while True:
            self._quiet = True
            await subscription.lost(within=_POLL_SECONDS)
            if self._quiet and any(watermark.awaited for watermark in self._by_prefix.values()):
                await self._read_all()
            await self._see_checked()

    def _take(self, channel: bytes, data: bytes) -> None:
        commit = from_json(data)
        watermark = self._by_channel[channel]
        self._quiet = commit["l"] != watermark.life
        watermark.set_aside(map(Token.parse, commit["a"]))
        watermark.advance(
            map(Token.parse, commit["w"]), ((Token.parse(token), reason) for token, reason in commit["r"])
        )
        watermark.settle(map(Token.parse, commit["s"]))

    async def _see_checked(self) -> None:
        for prefix, names in self._names.items():
            replication, life, checked = await read_at_once(
                self._redis, ("INFO", "replication"), ("GET", names.life), ("GET", names.checked)
            )
            present = life_of_memory(life, replication)
            self._by_prefix[prefix].is_checked = bool(present) and checked == present.encode()

    async def _read_all(self) -> None:
        for prefix, names in self._names.items():
            watermark = self._by_prefix[prefix]
            waits = watermark.awaited
            # What waits at this moment first: a refusal is recorded before what is acknowledged moves past it.
            life, text, aside, *waiting = await read_at_once(
                self._redis,
                ("GET", names.life),
                ("GET", names.acked),
                ("HKEYS", names.aside),
                *(("XRANGE", names.stream, str(token.id), str(token.id)) for token in waits),
            )
            refused = await refusals_from(self._redis, names, watermark.earliest)
            set_aside = set(map(Token.parse, aside))
            watermark.set_aside(set_aside)
            watermark.advance([Acked.parse(text).token], refused)
            watermark.settle_others(set_aside)
            watermark.life = life_in(life)
            if any(token.life != watermark.life for token in waits):
                watermark.give_up(set_aside | set(_tokens(waiting)) | {t for t in watermark.awaited if t not in waits})


def _tokens(found: Sequence[Any]) -> Iterable[Token]:
    """The tokens of entries, each as XRANGE finds it."""
    for entries in found:
        for entry_id, fields in entries:
            yield decode_entry(entry_id, dict(zip(fields[::2], fields[1::2], strict=True))).token
