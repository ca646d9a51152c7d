"""Clients of MongoDB (Motor today), with a deadline for each operation."""

from contextlib import AbstractContextManager, suppress
from typing import Any

import pymongo
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import ReadPreference, WriteConcern
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from gears.contract.mapping import Mapping
from gears.errors import ConfigError, without_secrets
from gears.in_mongo.uri_options import check_options

MongoError = PyMongoError
"""What every call here raises when MongoDB can't be reached or doesn't do what it was asked."""


Document = dict[str, Any]


_CLOSE_SECONDS = 0.3
"""Deadline of taking leave of MongoDB; the event loop waits for it."""


def open_client(uri: str, *, timeout: float) -> "AsyncIOMotorClient[Document]":
    """A client for this URI; every operation ends within `timeout` seconds, server selection included.

    Raises:
        ConfigError: the URI can't be used, or asks for what can't be had.
    """
    check_options(uri)
    try:
        return AsyncIOMotorClient(
            uri,
            timeoutMS=int(timeout * 1000),
            serverSelectionTimeoutMS=int(min(timeout, 3.0) * 1000),
            connectTimeoutMS=int(min(timeout, 3.0) * 1000),
            retryWrites=False,  # what is tried again, and how often, is for the committer to say
            retryReads=False,
            appname="writethrough",
            tz_aware=True,
            datetime_conversion="DATETIME_AUTO",
            unicode_decode_error_handler="replace",
        )
    except (PyMongoError, ValueError) as error:
        raise ConfigError(f"MONGO_URI can't be used: {without_secrets(uri, error)}") from error


def database_of(client: "AsyncIOMotorClient[Document]", mapping: Mapping) -> "AsyncIOMotorDatabase[Document]":
    """A mapping's database: writes there are acknowledged once a majority has them, and only such are read."""
    return client.get_database(
        mapping.database,
        write_concern=WriteConcern("majority", j=True),
        read_concern=ReadConcern("majority"),
        read_preference=ReadPreference.PRIMARY,
    )


def addresses(client: "AsyncIOMotorClient[Document]") -> str:
    """Where a client looks for MongoDB: `host:port`, separated by commas."""
    known = client.delegate.topology_description.server_descriptions()
    return (
        ", ".join(sorted(f"{host}:{port}" if port else host for host, port in known)) or "the addresses that DNS knows"
    )


def within(seconds: float) -> AbstractContextManager[Any]:
    """A deadline for the operations in a block; they raise `MongoError` when it passes."""
    return pymongo.timeout(seconds)


def close_client(client: "AsyncIOMotorClient[Document]") -> None:
    """Close it; a MongoDB that doesn't answer is soon no longer asked to end what was begun with it."""
    with suppress(PyMongoError), within(_CLOSE_SECONDS):
        client.close()


async def ping(client: "AsyncIOMotorClient[Document]", *, timeout: float) -> None:
    """Raise `MongoError` unless MongoDB answers within `timeout` seconds."""
    with within(timeout):
        await client.admin.command("ping")


async def see_server(client: "AsyncIOMotorClient[Document]", *, timeout: float) -> Document:
    """What the server says of itself: `hello`, and its version; raises `MongoError`."""
    with within(timeout):
        return await client.admin.command("hello") | {"version": (await client.server_info())["version"]}
