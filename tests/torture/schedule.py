"""The schedule: what the clients and the nemesis will do, drawn from the seed before anything happens."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

KEYS = tuple(f"{n:024x}" for n in range(20))
"""Ids that may be ObjectIds."""

_HEAT = [1 / (n + 2) ** 1.5 for n in range(len(KEYS))]
"""How often each key is used: from every moment to so seldom that nothing covers up what went wrong with it."""

HTTP_KINDS = {
    "PUT": 26,
    "PUT async": 6,
    "PUT If-Match": 12,
    "POST": 10,
    "PATCH": 12,
    "DELETE": 12,
    "GET": 14,
    "LIST": 3,
    "PUT invalid": 2,
}
"""What a client of the API does, by how often."""

PLAIN_KINDS = {
    "JSON.SET": 34,
    "JSON.SET path": 14,
    "JSON.MERGE": 10,
    "DEL": 14,
    "JSON.DEL": 6,
    "MULTI": 8,
    "JSON.SET poison": 3,
    "find": 8,
}
"""What a plain client of Redis does, by how often."""

PROCESSES = ("redis", "mongo", "worker-1", "worker-2", "api-1", "api-2")

EDGES = tuple(f"{ours}>{theirs}" for ours in PROCESSES[2:] for theirs in PROCESSES[:2])
"""Connections between two processes."""

MOMENTS = {
    "tombstones written": 6,
    "documents written": 3,
    "acknowledging": 3,
    "states read": 2,
    "log written": 1,
    "acknowledged": 1,
    "dead letters kept": 1,
    "refusals recorded": 1,
    "rolled back": 1,
}
"""Where a committer is stopped between two steps, by how often: see gears/process/failpoint.py."""

STOPPED, STANDBY = "worker-1", "worker-2"
"""The worker to which that happens, and the one that takes over."""

FAULTS = {
    "between steps": 25,
    "kill": 14,
    "freeze": 12,
    "restart": 5,
    "cut": 9,
    "stall": 9,
    "deafen": 7,
    "slow": 7,
    "answers": 12,
    "one document": 9,
    "lose tail": 5,
    "lose all": 3,
    "lose future": 3,
    "flush": 2,
    "failover and back": 4,
    "clock back": 3,
    "ahead": 2,
    "out of memory": 4,
    "steal lease": 5,
    "drop lease": 4,
    "reload": 3,
    "remove recipe": 4,
    "load recipe": 3,
    "drop index": 3,
    "expire": 8,
    "sweep": 4,
}
"""What the nemesis does, by how often."""

_ON_PROCESSES = {"kill", "freeze", "restart"}
_ON_EDGES = {"cut", "stall", "deafen", "slow"}
_ON_MONGO = {"drop index"}
WIRE = "wire"
"""What all of ours reach MongoDB through."""
DOCUMENT = "one document"
"""What MongoDB doesn't take, though it takes others."""
_AT_ONCE = {
    "flush",
    "ahead",
    "steal lease",
    "drop lease",
    "reload",
    "remove recipe",
    "load recipe",
    "drop index",
    "expire",
    "sweep",
}

STORM, CALM = 24.0, 6.0
"""Seconds of faults, and of none, in turn; a minute's worth of faults that never let go would test little."""

_GAP = 1.2
"""Mean seconds between the beginnings of two faults."""

_UNTIL_ASIDE = 3.0
"""Seconds that it takes at least until a document is set aside, and some more."""

_SETTLE = 2.0
"""Least seconds between two faults on the same target."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a client does next.

    Args:
        kind: the operation.
        key: the document's id.
        other: another document's id, for operations on two.
        look: what to look at right after an acknowledgement: "mongo", "other api" or nothing.
    """

    kind: str
    key: str
    other: str
    look: str


def steps(seed: int, client: str, kinds: dict[str, int]) -> Iterator[Step]:
    """What a client does, without end.

    Args:
        seed: of the run.
        client: its name.
        kinds: its operations, by how often.
    """
    chance = random.Random(f"{seed} {client}")
    names, weights = list(kinds), list(kinds.values())
    while True:
        [kind] = chance.choices(names, weights)
        [key] = chance.choices(KEYS, _HEAT)
        other = chance.choice([other for other in KEYS if other != key])
        [look] = chance.choices(["mongo", "other api", ""], [4, 3, 3])
        yield Step(kind, key, other, look)


@dataclass(frozen=True, slots=True)
class Fault:
    """What the nemesis does.

    Args:
        at: when, in seconds since the run began.
        kind: one of `FAULTS`.
        target: the process or edge that is hurt.
        seconds: how long it lasts.
        amount: how much: bytes of a tail, milliseconds of a delay, seconds of a clock, number of keys; or a seed.
        moment: where a committer is stopped, and how, as gears/process/failpoint.py reads it.
    """

    at: float
    kind: str
    target: str
    seconds: float
    amount: int
    moment: str = ""

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.kind} {self.target} for {self.seconds:.1f} s ({self.moment or self.amount})"


def plan(seed: int, seconds: float, *, kinds: Sequence[str] = tuple(FAULTS)) -> list[Fault]:
    """All faults of a run, in the order of their beginnings.

    Args:
        seed: of the run.
        seconds: how long the run takes.
        kinds: those that can be done here.
    """
    chance = random.Random(f"{seed} nemesis")
    free_at: dict[str, float] = {}
    faults: list[Fault] = []
    at = CALM / 2
    while at < seconds:
        fault = _draw(chance, at, kinds)
        if at % (STORM + CALM) < STORM and at >= free_at.get(fault.target, 0.0):
            free_at[fault.target] = at + fault.seconds + _SETTLE
            faults.append(fault)
        at += chance.expovariate(1 / _GAP)
    return faults


def _draw(chance: random.Random, at: float, kinds: Sequence[str]) -> Fault:
    [kind] = chance.choices(kinds, [FAULTS[kind] for kind in kinds])
    moment = ""
    if kind == "between steps":
        target, moment = STOPPED, _moment(chance)
    elif kind in _ON_PROCESSES:
        target = chance.choice(PROCESSES)
    elif kind in _ON_EDGES:
        target = chance.choice(EDGES)
    elif kind == "answers":
        target = WIRE
    elif kind == "one document":
        target = DOCUMENT
    else:
        target = "mongo" if kind in _ON_MONGO else "redis"
    least = _UNTIL_ASIDE if kind == "one document" else 0.2
    seconds = round(min(least + chance.expovariate(1 / 1.5), 8.0), 2)
    return Fault(
        round(at, 2), kind, target, 0.0 if kind in _AT_ONCE else seconds, int(10 ** chance.uniform(1, 4)), moment
    )


def _moment(chance: random.Random) -> str:
    [point] = chance.choices(list(MOMENTS), list(MOMENTS.values()))
    [verb] = chance.choices(["freeze", "kill"], [3, 1])
    return f"{verb}:{chance.randint(1, 2)} {point}"
