"""What a committer relies on: its lease, and the memory of Redis that it works with. All scripts of its ask for both.

Redis keeps a life together with the id of the memory. What Redis has fallen back to may name the same life, but then
the id of its memory, which INFO tells, is another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from gears.contract.redis_names import Names
from gears.engines import Engine
from gears.engines.recipe_calls import check_mine
from gears.in_redis.client import Redis
from gears.in_redis.pipelining import Part
from gears.in_redis.scripts import script_text

_GUARD = script_text("lease_and_life")

GUARD_KEYS, GUARD_ARGS = 2, 3
"""How many of a guarded script's KEYS and ARGV come before its own."""


@dataclass(frozen=True, slots=True)
class Mine:
    """What a committer relies on.

    Args:
        lease: its lease's token.
        life: the life that it knows.
        memory: the memory's id.
    """

    lease: str
    life: str
    memory: bytes

    @classmethod
    async def learn(cls, redis: Redis, engine: Engine, lease: str) -> Self:
        """Learn the present life, made if need be; raises as the engine."""
        await engine.life()
        kept: Any = await redis.get(engine.names.life)
        life, _, memory = (kept or b"").partition(b" ")
        return cls(lease, life.decode(), memory)

    @property
    def kept(self) -> bytes:
        """The life as Redis keeps it."""
        return self.life.encode() + b" " + self.memory

    def command(self, names: Names, script: str, keys: Sequence[Part], args: Sequence[Part]) -> list[Part]:
        """A script as a command, which does nothing unless what is relied on holds.

        Args:
            names: the mapping's names.
            script: its KEYS and ARGV come behind `GUARD_KEYS` and `GUARD_ARGS` others.
            keys: its own.
            args: its own.
        """
        of_guard = (self.lease, self.kept, self.memory)
        return ["EVAL", _GUARD + script, GUARD_KEYS + len(keys), names.lease, names.life, *keys, *of_guard, *args]

    async def run(self, redis: Redis, names: Names, script: str, keys: Sequence[Part], args: Sequence[Part]) -> Any:
        """Run a script, as `command` says; returns its reply.

        Raises:
            LeaseLost: another committer is at work.
            Rewound: Redis may have forgotten something.
        """
        done = await redis.execute_command(*self.command(names, script, keys, args))
        if isinstance(done, bytes):
            check_mine(done)
        return done
