"""MongoDB roles (https://www.mongodb.com/docs/manual/reference/privilege-actions/)."""

import json
from collections.abc import Iterable

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import OperationFailure

from gears.access.users import Role
from gears.contract.mapping import Mapping
from gears.in_mongo.client import Document
from gears.in_mongo.errors.what_errors_mean import Meaning, judge

_DOCUMENTS = "documents"
_ACTIONS: dict[Role, dict[str, tuple[str, ...]]] = {
    Role.SERVICE: {
        _DOCUMENTS: ("find", "listIndexes"),
        "sync_tombstones": ("find",),
        "sync_dead_letters": ("find",),
        "sync_audits": ("find",),
        "sync_rewinds": ("find",),
        "sync_log": ("find",),
    },
    Role.WORKER: {
        _DOCUMENTS: ("find", "insert", "update", "remove", "createIndex", "listIndexes"),
        "sync_tombstones": ("find", "insert", "update", "createIndex"),
        "sync_log": ("find", "insert", "update", "remove"),
        "sync_checkpoints": ("find",),
        "sync_dead_letters": ("find", "insert", "update", "createIndex"),
        "sync_audits": ("find", "insert", "remove"),
        "sync_rewinds": ("find", "insert", "update"),
        "sync_parked": ("find", "insert", "update", "remove"),
    },
    Role.CLIENT: {},
}

_WHOLE_DATABASE = ""
_LOOKING: dict[tuple[str, str], tuple[str, ...]] = {("config", "collections"): ("find",)}
"""What looking at a collection takes beside: how it is sharded, if it is."""


def privileges(role: Role, mappings: Iterable[Mapping]) -> list[Document]:
    """The privileges of a role, as `createRole` takes them."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for mapping in mappings:
        for name, actions in _ACTIONS[role].items():
            found[mapping.database, mapping.collection if name == _DOCUMENTS else name] = actions
        if _ACTIONS[role]:
            found |= _LOOKING | {(mapping.database, _WHOLE_DATABASE): ("listCollections",)}
    return [
        {"resource": {"db": database, "collection": collection}, "actions": list(actions)}
        for (database, collection), actions in found.items()
    ]


def script(role: Role, mappings: Iterable[Mapping], password: str) -> str:
    """The same as `set_up`, for mongosh."""
    lines = ['db = db.getSiblingDB("admin");']
    for kind, name, definition in _definitions(role, mappings, password):
        whole = {kind.lower(): name} | definition
        known, changed, made = (json.dumps(each) for each in (name, definition, whole))
        lines.append(f"db.get{kind}({known}) ? db.update{kind}({known}, {changed}) : db.create{kind}({made});")
    return "\n".join(lines) + "\n"


async def set_up(
    client: "AsyncIOMotorClient[Document]", role: Role, mappings: Iterable[Mapping], password: str
) -> None:
    """Create the role and its user in the database `admin`, or give them what they should have.

    Raises:
        MongoError: this isn't allowed, or MongoDB is away.
    """
    for kind, name, definition in _definitions(role, mappings, password):
        try:
            await client.admin.command(f"update{kind}", name, **definition)
        except OperationFailure as error:
            if judge(error).meaning is not Meaning.NO_USER:
                raise
            await client.admin.command(f"create{kind}", name, **definition)


def _definitions(role: Role, mappings: Iterable[Mapping], password: str) -> Iterable[tuple[str, str, Document]]:
    yield "Role", role.user, {"privileges": privileges(role, mappings), "roles": []}
    yield "User", role.user, {"pwd": password, "roles": [{"role": role.user, "db": "admin"}]}
