"""Reading what there is to commit: the next entries of the sync stream and the present states of their keys."""

from collections.abc import Collection, Sequence
from collections.abc import Mapping as Dict
from dataclasses import dataclass

from gears.contract.entries import DELETE_EVENTS, Entry, decode_entry
from gears.contract.redis_names import Names
from gears.contract.write_tokens import EntryId, Token
from gears.in_mongo.log.batches import Acked
from gears.in_redis.pipelining import Wire
from gears.in_redis.scripts import script_text
from worker.commit.read.decide import Gone, KeyEntries, State, coalesce
from worker.readable import JSON_TYPE, READ_BYTES

_WAIT_MS = 500

_PAGES = 5
"""A batch of b documents may have four times b entries, and one more where a RENAME would be cut in two."""

_READ = script_text("read_batch")
"""In one atomic step, so that what tells a deleted key from a lost one belongs to its state.

Both entries of a RENAME are in one batch, so that it arrives as a whole.
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is committed at a time.

    Args:
        entries: in order.
        keys: what they say of each key.
        states: each key's present state.
        newest: the stream's newest entry when they were read, which may be a later one; None when there was none.
        acked: what Redis knew to be acknowledged at that moment, as text.
        memory: the life as Redis kept it, and the memory's id, at that moment.
        beside: other keys, whose states were asked for.
    """

    entries: Sequence[Entry]
    keys: Sequence[KeyEntries]
    states: dict[bytes, State]
    newest: Token | None
    acked: str
    memory: tuple[bytes, bytes]
    beside: Sequence[KeyEntries] = ()

    def last(self, otherwise: Token) -> Token:
        """The last entry; `otherwise` if there is none."""
        return self.entries[-1].token if self.entries else otherwise

    @property
    def committed(self) -> list[Token]:
        """Of each life, its last entry, in their order."""
        return [Token(life, entry_id) for life, entry_id in {e.life: e.id for e in self.entries}.items()]

    @property
    def is_large(self) -> bool:
        """Whether its documents take much memory."""
        return sum(len(state) for state in self.states.values() if isinstance(state, bytes)) > READ_BYTES // 4


class Reader:
    """Reads a mapping's sync stream.

    Args:
        wire: nobody else's, since waiting for entries blocks it.
        names: the mapping's names.
    """

    def __init__(self, wire: Wire, names: Names) -> None:
        self._wire = wire
        self._names = names

    async def read(
        self,
        after: EntryId,
        most: int,
        most_bytes: int = READ_BYTES,
        *,
        wait: bool,
        known: Dict[bytes, KeyEntries],
        due: Collection[bytes],
        beside: Collection[bytes],
    ) -> Batch:
        """The batch that follows an entry, in one round trip; it has no entries when there are none.

        Args:
            after: the entry.
            most: documents in the batch.
            most_bytes: what they take, the last one not counted.
            wait: whether to wait for entries a moment, when there are none.
            known: what was said of keys before.
            due: those of these keys that are in the batch in any case.
            beside: other keys of which it is to tell the states.
        """
        stream, gone, start = self._names.stream, self._names.gone, len(self._names.prefix) + 2
        waiting = [("XREAD", "COUNT", 1, "BLOCK", _WAIT_MS, "STREAMS", stream, str(after))] if wait else []
        *_, (raw, found, newest, acked, life, memory) = await self._wire.send_all(
            *waiting,
            (
                "EVAL",
                _READ,
                3,
                stream,
                self._names.acked,
                self._names.life,
                str(after),
                most,
                most_bytes,
                _PAGES,
                gone,
                start,
                *due,
                *beside,
            ),
        )
        entries = [_decode(*entry) for entry in raw]
        keys = coalesce((entry for entry in entries if entry.key), known, due)
        others = {key: KeyEntries(key) for key in beside if key not in keys}
        unknown = Acked.parse(acked).token.id.next
        states = {key: _state(keys.get(key) or others[key], unknown, *state) for key, *state in found}
        return Batch(
            entries,
            list(keys.values()),
            states,
            _decode(*newest[0]).token if newest else None,
            acked.decode(),
            (life or b"", memory),
            list(others.values()),
        )


def _decode(entry_id: bytes, fields: Sequence[bytes]) -> Entry:
    return decode_entry(entry_id, dict(zip(fields[::2], fields[1::2], strict=True)))


def _state(
    entries: KeyEntries, unknown: EntryId, document: bytes | None, kind: bytes = b"", mark: bytes | None = None
) -> State:
    if document is not None:
        return document
    if kind not in (b"none", JSON_TYPE):
        return Gone.FOREIGN
    known = entries.tokens[-1].id if entries.tokens else unknown
    deleted_later = mark is not None and EntryId.parse(mark) >= known
    return Gone.DELETED if deleted_later or entries.last_event in DELETE_EVENTS else Gone.LOST
