"""Freezing MongoDB for a moment, so that somebody who tries this out sees what the promise means.

The API asks the launcher, whose child MongoDB is: so nobody else's process is ever meant, and whatever ends the wait,
MongoDB goes on.
"""

import os
import signal

FREEZE_SECONDS = 10.0
"""For how long."""

FREEZE_SIGNAL = signal.SIGUSR1
"""What the API sends the launcher."""

LAUNCHER = "WRITETHROUGH_LAUNCHER"
"""Variable in the API's environment that holds the launcher's process id; internal."""


def launcher() -> int | None:
    """The launcher that started this process and freezes on request; None where there is none."""
    parent = os.getppid()
    return parent if os.environ.get(LAUNCHER) == str(parent) else None
