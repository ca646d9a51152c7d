"""Run a command that dies with its parent: `python die_with_parent.py PARENT_PID COMMAND [ARGUMENT...]`.

A file of its own, run without site-packages, because the death signal has to be asked for in the child itself: after
the fork, before the command takes the process over. Linux ties the signal to the *thread* that forked, so the parent
forks from its main thread. See prctl(2), PR_SET_PDEATHSIG.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Replace this process by the command, unless the parent is gone already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the request above, so no signal will come
        sys.exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} can't be run: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
