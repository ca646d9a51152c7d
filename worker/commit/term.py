"""A committer's term: what it relies on, and what is acknowledged, under way and set aside in it."""

from collections.abc import Iterable
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field

from gears.contract.version import version_of
from gears.contract.write_tokens import ZERO, EntryId
from gears.in_mongo.log.batches import Acked, Logged
from worker.commit.set_aside import Aside
from worker.lease.lease import Lease
from worker.lease.lease_and_life import Mine


@dataclass(frozen=True, slots=True)
class Standing:
    """Where to go on.

    Args:
        mine: the lease and the life.
        term: the term that was begun.
        acked: what Redis knows to be acknowledged.
        lives: what is committed of the latest lives.
        unacked: the version of a batch that is written and not acknowledged, and the newest entry that it knew.
        partial: whether Redis was given back only what it held, so that the rest is to be warmed.
    """

    mine: Mine
    term: int
    acked: Acked
    lives: Dict[str, EntryId] = field(default_factory=dict)
    unacked: Dict[int, EntryId] = field(default_factory=dict)
    partial: bool = False


class Term:
    """A committer's term: its committer changes it, others look. Until it is begun, nothing counts as acknowledged.

    Args:
        lease: the lease under which to commit.
    """

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.mine = Mine(lease.token, "", b"")
        """What is relied on."""
        self.acked = Acked()
        """What is acknowledged, as Redis knows it."""
        self.lives: Dict[str, EntryId] = {}
        """What is committed of the latest lives."""
        self.unacked: dict[int, EntryId] = {}
        """Versions of batches that were written and not acknowledged, each with the newest entry that it knew."""
        self.inherited = ZERO
        """The last entry that an earlier committer, or an earlier try, may have refused and rolled back."""
        self.aside = Aside()
        """What is set aside."""
        self.committed_since: set[bytes] | None = None
        """Keys that were committed since this was made a set."""
        self._term = self._number = 0

    def begin(self, standing: Standing) -> None:
        """Go on from here."""
        self.mine, self._term, self._number = standing.mine, standing.term, 0
        self.acked = standing.acked
        self.lives, self.unacked = standing.lives, dict(standing.unacked)

    def next_version(self) -> int:
        """The version of what is read next, higher than all before."""
        self._number += 1
        return version_of(self._term, self._number)

    def writes(self, batch: Logged) -> None:
        """This batch may be written from now on."""
        self.unacked[batch.version] = batch.newest.id

    def may_refuse(self, last: EntryId) -> None:
        """Entries up to this one may be refused and rolled back from now on, and have to be done again."""
        self.inherited = max(self.inherited, last)

    def acknowledges(self, keys: Iterable[bytes]) -> None:
        """What is written of these keys may be acknowledged from now on."""
        if self.committed_since is not None:
            self.committed_since.update(keys)

    def acknowledged(self, batch: Logged, acked: Acked) -> None:
        """This batch is acknowledged, and nothing is under way any more."""
        self.acked = acked
        self.lives, self.unacked = batch.lives, {}
