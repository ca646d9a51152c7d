"""Named points in the code at which tests have a process kill or freeze itself; otherwise they do nothing.

The idea is that of PostgreSQL's injection points, https://www.postgresql.org/docs/current/xfunc-c.html, and of TiKV's
fail-rs: what happens between two steps can be tested only by stopping there.
"""

import os
import signal

VARIABLE = "FAILPOINTS"
"""Environment variable: `kill documents written; freeze:2 acknowledging` kills the process (SIGKILL) where the first
point is reached, and freezes it (SIGSTOP) where the second one is reached for the second time."""

_SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}


def _parse(text: str) -> dict[str, tuple[signal.Signals, int]]:
    armed = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        what, _, name = part.partition(" ")
        verb, _, times = what.partition(":")
        armed[name] = (_SIGNALS[verb], int(times or 1))
    return armed


_armed = _parse(os.environ.get(VARIABLE, ""))


def reached(name: str) -> None:
    """This point of the code is reached."""
    if name not in _armed:
        return
    number, left = _armed.pop(name)
    if left > 1:
        _armed[name] = number, left - 1
        return
    os.write(2, f"failpoint: {name}\n".encode())
    os.kill(os.getpid(), number)
