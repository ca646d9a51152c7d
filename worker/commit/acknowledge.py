"""Acknowledging, in one atomic step: entries leave the stream, `acked` moves, whoever waits is told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gears.contract.entries import Entry
from gears.contract.redis_names import GONE_TTL, Names
from gears.contract.write_tokens import Token
from gears.engines.recipe_calls import check_mine
from gears.in_mongo.log.batches import Acked
from gears.in_redis.pipelining import Part, Wire
from gears.in_redis.scripts import script_text
from gears.progress.set_aside_entries import value_of
from gears.progress.watermark import encode_commit
from worker.commit.read.decide import KeyEntries
from worker.commit.set_aside import Sorted
from worker.lease.lease_and_life import Mine

_ACKNOWLEDGE = script_text("acknowledge")
"""SET comes after what takes no memory: then Redis lets it through also when it is out of memory, and would otherwise
never get rid of the stream that fills it. Marks of deletes that aren't committed yet don't begin to expire.
"""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What has been committed.

    Args:
        before: what was acknowledged, as Redis has it.
        acked: what is from now on.
        committed: of each life in the batch, its last entry.
        marked: keys that may have the mark of a delete.
        refused: the entries that were refused, each with the reason.
        aside: what is set aside, or no longer.
    """

    before: str
    acked: Acked
    committed: Sequence[Token]
    marked: Sequence[bytes]
    refused: Mapping[Token, str]
    aside: Sorted = field(default_factory=Sorted)


async def acknowledge(wire: Wire, names: Names, mine: Mine, commit: Acknowledged) -> None:
    """Acknowledge what has been committed.

    Raises:
        LeaseLost: another committer is at work.
        Rewound: Redis has forgotten something.
        RedisAway, OutcomeUnknown: it may be done or not.
    """
    prefix, last = len(names.prefix) + 1, commit.acked.token.id
    added = {entry.token: value_of(entry) for said in commit.aside.added.values() for entry in _entries(said)}
    keys: list[Part] = [names.acked, names.stream, names.channel, names.aside]
    keys += [names.gone.encode() + key[prefix:] for key in commit.marked]
    args: list[Part] = [
        commit.before,
        str(commit.acked),
        str(last),
        str(last.next),
        encode_commit(mine.life, commit.committed, commit.refused, aside=added, settled=commit.aside.settled),
        GONE_TTL,
        len(commit.aside.settled),
        len(added),
        *map(str, commit.aside.settled),
        *(part for token, value in added.items() for part in (str(token), value)),
    ]
    done = await wire.send(*mine.command(names, _ACKNOWLEDGE, keys, args))
    check_mine(done)


def _entries(said: KeyEntries) -> Iterator[Entry]:
    """What is kept of what is said of a key: its document once."""
    for token in said.tokens:
        document = said.document if token == said.tokens[-1] else None
        yield Entry(token.id, said.key, said.last_event, life=token.life, document=document)
