"""`python -m service --embedded`: everything that a first try needs, from wheels, under one Ctrl-C."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
from anyio import CancelScope

from gears.contract.mapping import Mapping
from gears.errors import ConfigError
from gears.process.settings import forget_unknown_variables, read_settings
from service.auth.bearer_tokens import check_exposed, load_tokens
from service.embedded import server_commands as servers
from service.embedded.banner import AUTHORIZATION, banner
from service.embedded.children.child import CannotStart, Child
from service.embedded.children.process import problem_of
from service.embedded.children.ready import http_ready
from service.embedded.children.supervisor import Supervisor
from service.embedded.console import complain, say
from service.embedded.folder import locked
from service.embedded.ports import check_ports
from service.embedded.ports_and_folder import Setup
from service.page.freeze_signal import FREEZE_SECONDS, FREEZE_SIGNAL, LAUNCHER

STOP_ORDER = ("api", "worker", "redis", "mongo")
_READY_WITHIN = 10.0


def worker_and_api(setup: Setup) -> Sequence[Child]:
    """The project's own two processes."""
    api = servers.api(setup)
    return servers.worker(setup), replace(api, environment={**api.environment, LAUNCHER: str(os.getpid())})


async def run_embedded(
    *,
    host: str,
    port: int,
    redis_port: int,
    mongo_port: int,
    data: Path,
    own: Callable[[Setup], Sequence[Child]] = worker_and_api,
) -> int:
    """Run Redis, MongoDB, the worker and the API until SIGINT, SIGTERM or SIGHUP. Call it in the main thread.

    Args:
        host: IPv4 address or name that the API listens on.
        port: the API's port.
        redis_port: port of Redis on 127.0.0.1.
        mongo_port: port of the MongoDB-compatible server on 127.0.0.1.
        data: folder for data and logs, created when missing, picked up again when there.
        own: what runs beside the two servers.

    Returns:
        The exit code: 0 when it was told to stop, 1 when it could not start (and said why).
    """
    setup = Setup(host=host, port=port, redis_port=redis_port, mongo_port=mongo_port, data=_absolute(data))
    code = 0
    with anyio.open_signal_receiver(*_stop_signals()) as signals:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_on, signals, tasks.cancel_scope)
            try:
                await _run(setup, own)
            except CannotStart as error:
                complain(str(error))
                code = 1
                tasks.cancel_scope.cancel()
    if code == 0:
        say("Stopped.")
    return code


async def _run(setup: Setup, own: Callable[[Setup], Sequence[Child]]) -> None:
    try:
        settings = read_settings()
        forget_unknown_variables()  # else the worker and the API would warn of them, too
        check_exposed(settings, setup.host)
        tokens = load_tokens(settings) is not None
    except ConfigError as error:
        raise CannotStart(str(error)) from None
    async with locked(setup.data) as lock:
        check_ports(setup)
        children = (servers.redis(setup), servers.mongo(setup), *own(setup))
        say(f"Starting Redis, MongoDB, the worker and the API, with the data in {setup.data} ...")
        supervisor = Supervisor(children, stop_order=STOP_ORDER, inherited=lock)
        with anyio.open_signal_receiver(FREEZE_SIGNAL) as requests:  # unheard, the first one would end this process
            greet = partial(_greet, setup, settings.mappings[0], tokens=tokens)
            await supervisor.run(partial(_greet_and_serve, greet, requests, supervisor))


async def _cancel_on(signals: AsyncIterator[signal.Signals], scope: CancelScope) -> None:
    async for _ in signals:
        say("\nStopping ...")
        scope.cancel()
        return


def _stop_signals() -> list[signal.Signals]:
    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # ignored under nohup, and meant to stay so
        wanted.append(signal.SIGHUP)
    return wanted


async def _greet_and_serve(
    greet: Callable[[], Awaitable[None]], requests: AsyncIterator[signal.Signals], supervisor: Supervisor
) -> None:
    """Say what there is, then freeze MongoDB for a moment whenever the API asks for it."""
    await greet()
    async for _ in requests:
        say(f"MongoDB is frozen for {FREEZE_SECONDS:g} s, as the page asked.")
        await supervisor.freeze("mongo", FREEZE_SECONDS)


async def _greet(setup: Setup, mapping: Mapping, *, tokens: bool) -> None:
    ready = http_ready(setup.reachable_host, setup.port, "/readyz")
    with anyio.move_on_after(_READY_WITHIN) as patience:
        while True:
            if await problem_of(ready) is None:
                break
            await anyio.sleep(0.05)
    say(banner(setup, mapping, tokens=tokens))
    if patience.cancelled_caught:
        authorized = f"{AUTHORIZATION}, with a token of the scope admin," if tokens else ""
        complain(f"Writes are not possible yet: curl {setup.api_url}/readyz{authorized} says why.")


def _absolute(folder: Path) -> Path:
    return folder.expanduser().absolute()
