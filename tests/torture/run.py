"""One run: the system, its clients, the nemesis and what follows."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx

from tests.torture.check import Violation, check
from tests.torture.clients import Recorder, Transport
from tests.torture.faults import Faults
from tests.torture.finish import NotWell, compare, recover
from tests.torture.history import Outcome, Window, Write
from tests.torture.http_client import HttpClient
from tests.torture.plain_client import PlainClient
from tests.torture.schedule import FAULTS, HTTP_KINDS, KEYS, PLAIN_KINDS, Fault, Step, plan, steps
from tests.torture.system import System

HTTP_CLIENTS, PLAIN_CLIENTS = 12, 4

_LOOK_EVERY = 0.25
_STALE = 1.0
"""Seconds for which what `/readyz` says may be older than the question."""


@dataclass(slots=True)
class Run:
    """What a run was and what came of it.

    Args:
        engine: of the system.
        seed: of the schedule.
        seconds: how long clients and faults went on.
        rate: most operations per second.
        schedule: the faults as planned.
    """

    engine: str
    seed: int
    seconds: float
    rate: float
    schedule: list[Fault]
    recorder: Recorder
    left_out: list[str] = field(default_factory=list)
    """Kinds of fault that can't be done here."""
    faults: dict[str, int] = field(default_factory=dict)
    lost: list[Window] = field(default_factory=list)
    uncaptured: list[Window] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    ready: float = 0.0
    """The part of the time in which an API said that it was ready."""
    recovered: float | None = None
    """Seconds until all was well, once nothing hurt any more."""
    audit: dict[str, Any] = field(default_factory=dict)


async def torture(folder: Path, engine: str, *, seed: int, seconds: float, rate: float) -> Run:
    """Start a system, torture it for so many seconds, let it recover and judge it.

    Args:
        folder: an empty one for data and logs.
        engine: `gears1`, `gears2` or `function`.
        seed: the same seed draws the same schedule; with an even one, ids are ObjectIds under `_id`.
        seconds: how long.
        rate: most operations per second.

    Raises:
        CannotStart: a server is missing.
    """
    async with System(folder, engine, typed=seed % 2 == 0) as system:
        await system.start()
        recorder = Recorder()
        kinds = system.faults()
        run = Run(engine, seed, seconds, rate, plan(seed, seconds, kinds=kinds), recorder)
        run.left_out = [kind for kind in FAULTS if kind not in kinds]
        faults = Faults(system, recorder)
        poll = Readiness(system, recorder)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poll.run)
            with anyio.move_on_after(seconds):
                await _work(system, recorder, faults, run)
            try:
                run.recovered = await recover(system, faults)
                await _poison(system, recorder)
                run.audit = await compare(system, recorder)
            except NotWell as error:
                run.violations.append(Violation(5, str(error), "", ()))
            tasks.cancel_scope.cancel()
    run.ready = poll.share
    run.faults = faults.done
    run.lost = poll.until_ready(faults.lost)
    run.uncaptured = run.lost + poll.until_ready(faults.recipe_removed)
    if engine == "function":  # plain clients' deletes are captured by a worker, if one is there
        run.uncaptured.append(Window(0.0, recorder.now(), "no recipe captures plain clients"))
    _without_recipe(recorder, run.uncaptured)
    run.violations += [Violation(0, f"an answer like {w.detail}", w.key, (w,)) for w in recorder.strange]
    run.violations += check(recorder.events, run.lost, run.uncaptured, faults.index_dropped)
    return run


async def _work(system: System, recorder: Recorder, faults: Faults, run: Run) -> None:
    pause = (HTTP_CLIENTS + PLAIN_CLIENTS) / run.rate
    async with anyio.create_task_group() as tasks:
        for n in range(HTTP_CLIENTS):
            http = HttpClient(f"http-{n}", system, recorder, n % 2)
            tasks.start_soon(http.run, steps(run.seed, http.name, HTTP_KINDS), pause)
        for n in range(PLAIN_CLIENTS):
            plain = PlainClient(f"plain-{n}", system, recorder)
            tasks.start_soon(plain.run, steps(run.seed, plain.name, PLAIN_KINDS), pause)
        for fault in run.schedule:
            tasks.start_soon(_at, recorder, faults, fault)


async def _poison(system: System, recorder: Recorder) -> None:
    """Write to some keys what MongoDB can't hold, and nothing after it: only a roll-back makes both sides equal."""
    last_words = (Step("JSON.SET poison", key, "", "") for key in KEYS[::5])
    await PlainClient("plain-end", system, recorder).run(last_words, 0)


def _without_recipe(recorder: Recorder, uncaptured: list[Window]) -> None:
    """Where no recipe holds a plain client's reply, the reply says nothing of MongoDB."""
    plain = [write for write in recorder.events if isinstance(write, Write) and write.client.startswith("plain")]
    for write in plain:
        unheld = any(window.touches(write.start, write.end) for window in uncaptured)
        if unheld and write.outcome is Outcome.ACKNOWLEDGED:
            write.outcome, write.acknowledged = Outcome.QUEUED, None


async def _at(recorder: Recorder, faults: Faults, fault: Fault) -> None:
    await anyio.sleep(max(0.0, fault.at - recorder.now()))
    await faults.do(fault)


class Readiness:
    """Asks both APIs, all the time, whether they are ready."""

    def __init__(self, system: System, recorder: Recorder) -> None:
        self._system = system
        self._recorder = recorder
        self._asked: list[tuple[float, float, bool]] = []

    @property
    def share(self) -> float:
        """The part of all questions that was answered with yes."""
        return sum(ready for _, _, ready in self._asked) / max(1, len(self._asked))

    def until_ready(self, windows: Iterable[Window]) -> list[Window]:
        """These, made longer until an API first said, of what it saw afterwards, that it is ready."""
        return [Window(window.start, self._ready_after(window.end), window.what) for window in windows]

    def _ready_after(self, time: float) -> float:
        return next((end for start, end, ready in self._asked if ready and start >= time + _STALE), float("inf"))

    async def run(self) -> None:
        """Ask until cancelled."""
        async with httpx.AsyncClient(transport=Transport(), timeout=3) as client, anyio.create_task_group() as tasks:
            for url in self._system.apis.values():
                tasks.start_soon(self._ask, client, url)

    async def _ask(self, client: httpx.AsyncClient, url: str) -> None:
        while True:
            start = self._recorder.now()
            try:
                ready = (await client.get(f"{url}/readyz")).status_code == 200
            except httpx.HTTPError:
                ready = False
            self._asked.append((start, self._recorder.now(), ready))
            await anyio.sleep(_LOOK_EVERY)
