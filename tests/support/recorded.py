"""`python -m tests.recorded worker audit`: a command of ours as it is, but that it notes what it asks of MongoDB.

Each kind of request is a line of JSON in the file named by RECORDED: command, database, collection, and what of the
request decides which privileges it takes.
"""

import json
import os
import runpy
import sys
from typing import Any

from pymongo import monitoring

VARIABLE = "RECORDED"


class Recorder(monitoring.CommandListener):
    """Appends what it sees for the first time."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 open as long as the process lives
        self._seen: set[str] = set()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        command: Any = event.command
        name = event.command_name
        target = command["collection"] if name == "getMore" else command[name]
        line = json.dumps(
            {
                "command": name,
                "database": event.database_name,
                "collection": target if isinstance(target, str) else "",
                "upsert": any(update.get("upsert") for update in (command, *command.get("updates", ()))),
                "stages": sorted({stage for each in command.get("pipeline", ()) for stage in each}),
            }
        )
        if line not in self._seen:
            self._seen.add(line)
            self._file.write(line + "\n")

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing to note."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing to note."""


if __name__ == "__main__":
    monitoring.register(Recorder(os.environ[VARIABLE]))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
