"""Are the ports free? Asked before anything starts, so that the answer can name the option to change."""

import errno
import socket
from typing import NamedTuple

from service.embedded.children.child import CannotStart
from service.embedded.ports_and_folder import LOOPBACK, Setup


class _Wanted(NamedTuple):
    what: str
    host: str
    port: int
    variable: str
    option: str

    @property
    def remedy(self) -> str:
        return f"{self.variable}=<port> or {self.option} <port>"


def check_ports(setup: Setup) -> None:
    """Raise `CannotStart` if one of the three ports can't be listened on."""
    wanted = (
        _Wanted("the API", setup.host, setup.port, "PORT", "--port"),
        _Wanted("Redis", LOOPBACK, setup.redis_port, "REDIS_PORT", "--redis-port"),
        _Wanted("MongoDB", LOOPBACK, setup.mongo_port, "MONGO_PORT", "--mongo-port"),
    )
    taken: dict[int, _Wanted] = {}
    for one in wanted:
        if other := taken.get(one.port):
            raise CannotStart(
                f"Port {one.port} is meant for {other.what} and {one.what}; choose another: {one.remedy}."
            )
        taken[one.port] = one
        _check(one)


def _check(wanted: _Wanted) -> None:
    if not 0 < wanted.port < 65536:
        raise CannotStart(f"{wanted.port} is no port for {wanted.what}; choose one from 1 to 65535: {wanted.remedy}.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((wanted.host, wanted.port))
        except socket.gaierror:
            raise CannotStart(f"{wanted.host!r} is no IPv4 address of this machine; choose another --host.") from None
        except OSError as error:
            raise CannotStart(_explain(wanted, error)) from None


def _explain(wanted: _Wanted, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {wanted.port} for {wanted.what} is taken by another program. "
            f"Stop that one, or choose another port: {wanted.remedy}."
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{wanted.host!r} is no IPv4 address of this machine; choose another --host."
    return f"Port {wanted.port} for {wanted.what} can't be used ({error.strerror}); choose another: {wanted.remedy}."
