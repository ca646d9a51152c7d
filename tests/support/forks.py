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
from contextlib import suppress
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

    def __init__(self, forks: "Forks", number: int, pid: int) -> None:
        self.pid = pid
        self._forks = forks
        self._number = number

    def poll(self) -> int | None:
        """What it ended with, negative for a signal; None while it runs."""
        return self._forks.ended(self._number)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended
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
        self._asked = 0
        self._pids: dict[int, int] = {}
        self._ended: dict[int, int] = {}

    def fork(self, command: Sequence[str], env: dict[str, str], log: Path) -> Forked:
        """Run `python -P -m PACKAGE ARGUMENT...` with this environment; its output is appended to a file."""
        self._asked = number = self._asked + 1
        self._socket.sendall(json.dumps([number, command[3], command[4:], env, str(log)]).encode() + b"\n")
        while number not in self._pids:
            self._hear()
        return Forked(self, number, self._pids.pop(number))

    def ended(self, number: int) -> int | None:
        """What this one ended with; None while it runs."""
        while select.select([self._socket], [], [], 0)[0]:
            self._hear()
        return self._ended.get(number)

    def _hear(self) -> None:
        """Wait for something to be said, and note all that is."""
        received = self._socket.recv(65536)
        assert received, "the process that forks has ended"
        *lines, self._received = (self._received + received).split(b"\n")
        for line in lines:
            what, number, value = json.loads(line)
            (self._pids if what == "pid" else self._ended)[number] = value


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
    parent, running, requests = os.getpid(), dict[int, int](), b""
    gc.freeze()
    while True:
        ready, _, _ = select.select([asked, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _say_what_ended(asked, running)
        if asked in ready:
            received = asked.recv(65536)
            if not received:
                return None
            *lines, requests = (requests + received).split(b"\n")
            for line in lines:
                number, module, arguments, env, log = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    for end in (woken, waker, asked):
                        end.close()
                    return _become(parent, module, arguments, env, log)
                running[pid] = number
                _say(asked, "pid", number, pid)


def _say(asked: socket.socket, what: str, number: int, value: int) -> None:
    asked.sendall(json.dumps([what, number, value]).encode() + b"\n")


def _say_what_ended(asked: socket.socket, running: dict[int, int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(asked, "ended", running.pop(pid), os.waitstatus_to_exitcode(status))


def _become(parent: int, module: str, arguments: Sequence[str], env: dict[str, Any], log: str) -> None:
    """Be what was asked for."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
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
