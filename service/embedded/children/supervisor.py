"""Keep processes running: start them in order, start again what dies or hangs, stop all of them in time."""

import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import anyio
from anyio import TASK_STATUS_IGNORED, CancelScope
from anyio.abc import Process, TaskStatus

from gears.process.failpoint import reached
from service.embedded.children.child import CannotStart, Child
from service.embedded.children.child_log import Log
from service.embedded.children.process import NO_ANSWER, end, outcome, problem_of, spawn, wait_until_ready
from service.embedded.console import complain, say

STOP_WITHIN = 4.5
"""Seconds for stopping everything; each process has an equal share and what those before it left over."""
_SETTLED = 10.0
"""Seconds after which a process counts as running well, so that its next end is answered at once."""
_HUNG_AFTER = 30.0
"""Seconds without an answer after which a process counts as hung: a server may hang in its own crash report."""
_UNANSWERED = 6
"""How often it is asked in that time; a pause of this process itself counts once."""
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0


class Supervisor:
    """Runs the children.

    Args:
        children: in the order of starting.
        stop_order: their names, in the order of stopping.
        inherited: file descriptor that every child keeps open.
        hung_after: seconds without an answer after which a child is ended and started again.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        stop_order: Sequence[str],
        inherited: int,
        hung_after: float = _HUNG_AFTER,
    ) -> None:
        self._children = {child.name: child for child in children}
        self._stop_order = stop_order
        self._inherited = inherited
        self._hung_after = hung_after
        self._running: dict[str, Process] = {}

    async def run(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        """Start everything, run `on_ready`, keep it running until cancelled, stop everything.

        Must run in the main thread: the children die with the thread that started them.

        Raises:
            CannotStart: a child did not become ready; the others were stopped.
        """
        failure: CannotStart | None = None
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    for child in self._children.values():
                        await tasks.start(self._keep, child, name=child.name)
                        reached("child started")
                    await on_ready()
                except CannotStart as error:
                    failure = error
                    tasks.cancel_scope.cancel()
        finally:
            with CancelScope(shield=True):
                await self._stop()
        if failure is not None:
            raise failure

    async def freeze(self, name: str, seconds: float) -> None:
        """Stop a process for so many seconds, as if its machine hung; whatever ends the wait, it goes on."""
        process = self._running[name]
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGSTOP)
        try:
            await anyio.sleep(seconds)
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)

    async def _keep(self, child: Child, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        process = await self._start(child)
        task_status.started()
        pause = _FIRST_PAUSE
        while True:
            since = anyio.current_time()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._end_when_hung, child, process)
                await process.wait()
                tasks.cancel_scope.cancel()
            if anyio.current_time() - since > _SETTLED:
                pause = _FIRST_PAUSE
            complain(f"{child.name} ended unexpectedly ({outcome(process)}); starting it again in {pause:g} s.")
            process, pause = await self._start_again(child, pause)

    async def _end_when_hung(self, child: Child, process: Process) -> None:
        unanswered = 0
        while unanswered < _UNANSWERED:
            await anyio.sleep(self._hung_after / _UNANSWERED)
            unanswered = unanswered + 1 if await problem_of(child.ready) == NO_ANSWER else 0
        complain(f"{child.name} has not answered for {self._hung_after:g} s; ending it.")
        await end(child, process, deadline=anyio.current_time() + 1)

    async def _start_again(self, child: Child, pause: float) -> tuple[Process, float]:
        while True:
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                process = await self._start(child)
            except CannotStart as error:
                complain(f"{error}\nTrying again in {pause:g} s.")
            else:
                say(f"{child.name} runs again.")
                return process, pause

    async def _start(self, child: Child) -> Process:
        log = Log(child.log)
        try:
            with CancelScope(shield=True):
                process = self._running[child.name] = await spawn(child, inherited=self._inherited)
        except OSError as error:
            raise CannotStart(f"{child.name} can't be started: {error}.") from None
        try:
            await wait_until_ready(child, process)
        except CannotStart as error:
            await end(child, process, deadline=anyio.current_time() + 1)
            raise CannotStart(f"{error} {log.end()}") from None
        return process

    async def _stop(self) -> None:
        begin = anyio.current_time()
        share = STOP_WITHIN / max(1, len(self._stop_order))
        for number, name in enumerate(self._stop_order, start=1):
            if process := self._running.get(name):
                await end(self._children[name], process, deadline=begin + number * share)
