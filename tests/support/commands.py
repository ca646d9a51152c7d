"""`writethrough` in a process of its own, one command after the other: Python takes longer to start than they do."""

import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

import anyio
from typer.testing import CliRunner

from tests.support.stack import Stack
from writethrough.__main__ import app


class Ended(NamedTuple):
    """What came of a command."""

    code: int
    stdout: str
    stderr: str


class Commands:
    """Runs commands."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.commands"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    async def run(self, stack: Stack, words: str, *, code: int = 0) -> Ended:
        """Run a command on this stack's servers, which ends with this exit code."""
        ended = await anyio.to_thread.run_sync(self._run, words, stack.env)
        assert ended.code == code, ended
        return ended

    async def reports(self, stack: Stack, words: str, *, code: int = 0) -> list[dict[str, Any]]:
        """What it reports with `--json`."""
        return [json.loads(line) for line in (await self.run(stack, f"{words} --json", code=code)).stdout.splitlines()]

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=10)

    def _run(self, words: str, env: dict[str, str]) -> Ended:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([words, env]) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))


def _serve() -> None:
    for line in sys.stdin:
        words, env = json.loads(line)
        ended = CliRunner().invoke(app, words.split(), env=os.environ | env)
        print(json.dumps([ended.exit_code, ended.stdout, ended.stderr]), flush=True)


if __name__ == "__main__":
    _serve()
