"""One start of a child: spawned so that it dies with its parent, waited for until ready, ended in time."""

import math
import os
import signal
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import DEVNULL, STDOUT
from typing import IO

import anyio
from anyio.abc import Process

from service.embedded.children.child import CannotStart, Child, Probe
from service.embedded.console import say

_DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
_POLL = 0.02
_ANSWER_WITHIN = 2.0
_PATIENCE = 5.0
"""Seconds after which a wait is explained."""


async def spawn(child: Child, *, inherited: int) -> Process:
    """Start the process, in a session of its own: Ctrl-C in the terminal reaches the launcher alone.

    It dies with the calling thread. Raises OSError when its log can't be written.
    """
    with ExitStack() as files:
        output: IO[bytes] | None = files.enter_context(child.log.open("ab")) if child.log else None
        return await anyio.open_process(
            [sys.executable, "-I", "-S", str(_DIE_WITH_PARENT), str(os.getpid()), *child.command],
            stdin=DEVNULL,
            stdout=output,
            stderr=STDOUT if output else None,
            env={**os.environ, **child.environment},
            start_new_session=True,
            pass_fds=(inherited,),
        )


async def wait_until_ready(child: Child, process: Process) -> None:
    """Ask the child's probe until it says yes.

    Raises:
        CannotStart: the process ended, or was not ready in time.
    """
    begin = anyio.current_time()
    explained = False
    problem = None
    while anyio.current_time() - begin < child.ready_within:
        if process.returncode is not None:
            raise CannotStart(f"{child.name} ended before it was ready ({outcome(process)}).")
        problem = await problem_of(child.ready)
        if problem is None:
            return
        if not explained and anyio.current_time() - begin > _PATIENCE:
            explained = True
            say(f"Waiting for {child.name}" + (f", see {child.log} ..." if child.log else " ..."))
        await anyio.sleep(_POLL)
    raise CannotStart(f"{child.name} was not ready within {child.ready_within:g} s ({problem}).")


NO_ANSWER = "no answer"
"""The problem of a process that says nothing at all."""


async def problem_of(probe: Probe) -> str | None:
    """Why it is not ready; None when it is."""
    try:
        with anyio.fail_after(_ANSWER_WITHIN):
            return None if await probe() else "it says it is not ready"
    except TimeoutError:
        return NO_ANSWER
    except OSError as error:
        return str(error) or "connection closed"


async def end(child: Child, process: Process, *, deadline: float) -> None:
    """SIGTERM; at the deadline (anyio's clock) SIGKILL to it and whatever it started."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
    with anyio.CancelScope(deadline=deadline):
        while process.returncode is None:
            with anyio.move_on_after(_POLL if child.nudge else math.inf):
                await process.wait()
            if child.nudge:
                await child.nudge()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def outcome(process: Process) -> str:
    """How it ended, in words."""
    code = process.returncode
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
