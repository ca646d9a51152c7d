"""Serving the application: uvicorn on uvloop and httptools, ending in good order."""

import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

import structlog
import uvicorn

from gears.process.log_lines import configure
from gears.process.memory import give_back_large_blocks
from gears.process.settings import Settings
from service.app import create_app
from service.auth.bearer_tokens import check_exposed
from service.http.protocol import HttpProtocol, raise_file_limit

_STOP_SECONDS = 3
"""How long requests under way may take to end; writes that wait for MongoDB are answered earlier."""

_GARBAGE = 50_000
"""New objects after which garbage is looked for, about what a thousand requests hold."""


def serve(settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; exits the process when it can't listen.

    Args:
        settings: the configuration.
        host: address to listen on.
        port: TCP port.

    Raises:
        ConfigError: a setting can't be used, or others could use the API without a token.
    """
    check_exposed(settings, host)
    raise_file_limit()
    give_back_large_blocks()
    app = create_app(settings)
    configure(settings.log_level)
    logging.basicConfig(handlers=[_ToStructlog()], level=settings.log_level.upper(), force=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)  # uvicorn takes over while it serves, and raises the signal again afterwards
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    _collect_less_garbage()
    _Server(config, app.state.stop).run()


def _collect_less_garbage() -> None:
    """What was loaded is never garbage, nor is what requests under way hold; looking through both took a fifth."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)


class _ToStructlog(logging.Handler):
    """Passes what libraries log on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def _exit(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
