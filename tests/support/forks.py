"""Python processes under test, forked from one that has imported their modules.

Starting Python and importing them takes a second of CPU for each process, and the tests start thousands.
"""

import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gears.process import failpoint

FORKABLE = ("worker", "service", "secantus")
"""Packages whose `python -P -m PACKAGE` is forked."""

_IMPORTED = ("worker.__main__", "service.__main__", "service.server", "secantus.cli")

_PR_SET_PDEATHSIG = 1


def can_fork(command: Sequence[str]) -> bool:
    """Whether a command can be had by `fork`."""
    return tuple(command[:3]) == (sys.executable, "-P", "-m") and command[3] in FORKABLE


class Forked:
    """A forked process, with what is used of `subprocess.Popen`."""

    def __init__(self, forks: "Forks", pid: int) -> None:
        self.pid = pid
        self._forks = forks

    def poll(self) -> int | None:
        """What it ended with, negative for a signal; None while it runs."""
        return self._forks.ended(self.pid)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Forks:
    """The process that forks, and what came of those that it has forked; all of them end with this one."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(other.fileno())],
                cwd=Path(__file__).parents[2],
                pass_fds=(other.fileno(),),
            )
        self._received = b""
        self._ended: dict[int, int] = {}

    def fork(self, command: Sequence[str], env: dict[str, str], log: Path) -> Forked:
        """Run `python -P -m PACKAGE ARGUMENT...` with this environment; its output is appended to a file."""
        self._socket.sendall(json.dumps([command[3], command[4:], env, str(log)]).encode() + b"\n")
        while (pid := self._next(wait=True)) is None:
            pass
        self._ended.pop(pid, None)
        return Forked(self, pid)

    def ended(self, pid: int) -> int | None:
        """What this one ended with; None while it runs."""
        while select.select([self._socket], [], [], 0)[0]:
            self._next(wait=False)
        return self._ended.get(pid)

    def _next(self, *, wait: bool) -> int | None:
        """What is said next: the id of a new process, or None for the end of one, which is noted."""
        while b"\n" not in self._received:
            received = self._socket.recv(65536)
            assert received, "the process that forks has ended"
            self._received += received
            if not wait:
                break
        pid: int | None = None
        while pid is None and b"\n" in self._received:
            line, _, self._received = self._received.partition(b"\n")
            said = json.loads(line)
            if len(said) == 2:
                self._ended[said[0]] = said[1]
            else:
                [pid] = said
        return pid


@cache
def forks() -> Forks:
    """The one of this process."""
    return Forks()


def _serve(asked: socket.socket) -> None:
    """Fork what is asked for, and say what has ended, until nobody asks any more."""
    woken, waker = socket.socketpair()
    for end in (woken, waker):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    parent, lines = os.getpid(), asked.makefile("r")
    gc.freeze()
    while True:
        ready, _, _ = select.select([asked, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _say_what_ended(asked)
        if asked in ready:
            line = lines.readline()
            if not line:
                return
            module, arguments, env, log = json.loads(line)
            if pid := os.fork():
                asked.sendall(json.dumps([pid]).encode() + b"\n")
                continue
            for end in (woken, waker, asked):
                end.detach()
            _become(parent, module, arguments, env, log)
            return


def _say_what_ended(asked: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        asked.sendall(json.dumps([pid, os.waitstatus_to_exitcode(status)]).encode() + b"\n")


def _become(parent: int, module: str, arguments: Sequence[str], env: dict[str, Any], log: str) -> None:
    """Be what was asked for."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
    os.closerange(3, 64)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(env)
    importlib.reload(failpoint)
    del sys.path[0]  # as by `-P`
    sys.argv[1:] = arguments
    sys.modules.pop(f"{module}.__main__", None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in _IMPORTED:
        importlib.import_module(name)
    _serve(socket.socket(fileno=int(sys.argv[1])))
