"""Who there is."""

import os
from enum import StrEnum

from gears.errors import ConfigError


class Role(StrEnum):
    """A user of the servers; in Redis and MongoDB it is called `writethrough_<role>`."""

    SERVICE = "service"
    WORKER = "worker"
    CLIENT = "client"
    """A plain Redis client, which reads and writes documents; it has no business in MongoDB."""

    @property
    def user(self) -> str:
        """Its name."""
        return f"writethrough_{self}"

    @property
    def variable(self) -> str:
        """The environment variable that holds its password."""
        return f"{self.upper()}_PASSWORD"


def passwords() -> dict[Role, str]:
    """The passwords in the environment; roles without one aren't set up.

    Raises:
        ConfigError: there is none.
    """
    found = {role: os.environ[role.variable] for role in Role if os.environ.get(role.variable)}
    if not found:
        raise ConfigError(f"no passwords; set {', '.join(role.variable for role in Role)}, or those that you need")
    return found
