"""What is said of MongoDB's errors: the cause, and never a value of a document."""

import string
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import bson
import pytest
import pytest_asyncio
from bson.errors import InvalidDocument
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo import AsyncMongoClient, InsertOne
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
    WriteError,
    WTimeoutError,
)

from gears.in_mongo.errors.code_names import NAMES
from gears.in_mongo.errors.describe import LONGEST, describe, describe_item
from gears.in_mongo.errors.known_codes import KNOWN
from tests.support.stack import Stack, free_port
from tests.wire import (
    WireProxy,
    change_reply,
    cut,
    delay,
    item_error,
    on,
    top_error,
    without_key_pattern,
    write_concern_error,
)

Document = dict[str, Any]
Client = AsyncMongoClient[Document]


VALIDATION: Document = {
    "failingDocumentId": bson.ObjectId(),
    "details": {
        "operatorName": "$and",
        "clausesNotSatisfied": [
            {
                "index": 0,
                "details": {
                    "operatorName": "$jsonSchema",
                    "schemaRulesNotSatisfied": [
                        {
                            "operatorName": "properties",
                            "propertiesNotSatisfied": [
                                {
                                    "propertyName": "address",
                                    "details": [
                                        {
                                            "operatorName": "properties",
                                            "propertiesNotSatisfied": [
                                                {
                                                    "propertyName": "zip",
                                                    "details": [{"operatorName": "pattern", "consideredValue": "S"}],
                                                }
                                            ],
                                        },
                                        {"operatorName": "required", "missingProperties": ["city"]},
                                    ],
                                }
                            ],
                        },
                        {"operatorName": "additionalProperties", "additionalProperties": ["colour"]},
                    ],
                },
            },
            {
                "index": 1,
                "details": {"operatorName": "$gt", "specifiedAs": {"age": {"$gt": 5}}, "consideredValue": "S"},
            },
        ],
    },
}


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (
            {"code": 11000, "errmsg": "E11000 duplicate key error collection: a.b index: mail_1 dup key: { mail: 7 }"},
            "another document has the same value in the unique index mail_1: DuplicateKey (11000)",
        ),
        (
            {"code": 11000, "errmsg": "other words", "keyPattern": {"a": 1, "b.c": -1}},
            "another document has the same value of a, b.c, which is unique: DuplicateKey (11000)",
        ),
        (
            {
                "code": 11000,
                "errmsg": "Duplicate key violation on the requested collection: Index 'mail_1'",
                "keyPattern": {"mail": 1},
            },
            "another document has the same value in the unique index mail_1 (mail): DuplicateKey (11000)",
        ),
        ({"code": 11000}, "another document has the same value: DuplicateKey (11000)"),
        (
            {"code": 121, "errInfo": VALIDATION},
            "the collection's validator refuses it: DocumentValidationFailure (121): address.zip (pattern), "
            "address.city (required), colour (additionalProperties), age ($gt)",
        ),
        ({"code": 121}, "the collection's validator refuses it: DocumentValidationFailure (121)"),
        ({"code": 52}, "a field name starts with '$': DollarPrefixedFieldName (52)"),
        (
            {"code": 13},
            "MongoDB: Unauthorized (13): the user may not do this; "
            "grant its user the role again: writethrough access mongo --apply",
        ),
        ({"code": 112, "errmsg": "WriteConflict"}, "MongoDB: WriteConflict (112)"),
        ({"code": 8_001_234, "codeName": "VendorError"}, "MongoDB: VendorError (8001234)"),
        ({"code": 8_001_234, "codeName": "no name"}, "MongoDB: Location8001234 (8001234)"),
        ({"errmsg": "none"}, "MongoDB: an error without a code"),
    ],
)
def test_an_item_of_a_write(failure: Document, text: str) -> None:
    assert describe_item(failure) == text


def bulk(*failures: Document, unconfirmed: Document | None = None) -> BulkWriteError:
    return BulkWriteError(
        {"writeErrors": list(failures), "writeConcernErrors": [] if unconfirmed is None else [unconfirmed]}
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (bulk({"code": 52}, {"code": 112}), "MongoDB: WriteConflict (112) (and 1 more)"),
        (bulk({"code": 52}), "a field name starts with '$': DollarPrefixedFieldName (52)"),
        (
            bulk({"code": 11000}, unconfirmed={"code": 64}),
            "MongoDB did not confirm on a majority: WriteConcernTimeout (64)",
        ),
        (bulk({"code": 1}, unconfirmed={"code": 64}), "MongoDB: InternalError (1)"),
        (OperationFailure("no"), "MongoDB: an error without a code"),
        (OperationFailure("no", 13440), "MongoDB: Location13440 (13440)"),
        (NotPrimaryError("not master"), "MongoDB: not the primary"),
        (
            WriteConcernError("no", 100),
            "MongoDB did not confirm on a majority: UnsatisfiableWriteConcern (100); add members that hold data",
        ),
        (AutoReconnect("db-1.example:27017: operation cancelled (configured timeouts: socketTimeoutMS: 1.0ms)"),
            "db-1.example:27017: given up, since the server no longer answers the driver's checks"),
        (AutoReconnect("[::1]:27017: [Errno 104] Connection reset by peer"), "[::1]:27017: the connection broke"),
        (AutoReconnect("db:1: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed (_ssl.c:1006)"),
            "db:1: its TLS certificate is not accepted"),
        (AutoReconnect("db:1: [SSL: WRONG_VERSION_NUMBER] wrong version (_ssl.c:1)"),
            "db:1: TLS could not be agreed on"),
        (ConfigurationError("Server at db:1 reports wire version 3"),
            "MongoDB: the server's version and the driver's don't fit"),
        (ConfigurationError("secret"), "MongoDB: the settings of the connection are wrong"),
        (InvalidDocument("secret"), "a document can't be written as BSON, or read"),
        (ValueError("secret"), "MongoDB: ValueError"),
    ],
)  # fmt: skip
def test_an_error_of_the_driver(error: Exception, text: str) -> None:
    assert describe(error) == text


def test_the_first_cause_is_told_not_that_of_the_retry() -> None:
    later = ServerSelectionTimeoutError("No servers found yet, Timeout: 3s, Topology Description: <...>")
    later.__cause__ = WTimeoutError("waiting for replication timed out", 64, {"code": 64})
    assert describe(later) == "MongoDB did not confirm on a majority: WriteConcernTimeout (64)"


@dataclass
class Scene:
    """A server, a proxy before it, and a client of the proxy's."""

    stack: Stack
    proxy: WireProxy
    client: Client


def connect(uri: str, **options: Any) -> Client:
    return AsyncMongoClient(uri, **{"retryWrites": False, "retryReads": False, "timeoutMS": 5000} | options)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    stack = Stack(tmp_path_factory.mktemp("errors"))
    try:
        await stack.start(stack.mongo)
        async with WireProxy(stack.setup.mongo_port) as proxy, connect(proxy.uri) as client:
            yield Scene(stack, proxy, client)
    finally:
        await stack.close()


async def said(client: Client, documents: list[Document] | None = None) -> str:
    with pytest.raises(PyMongoError) as caught:
        await client.test.said.bulk_write([InsertOne(document) for document in documents or [{}]], ordered=False)
    return describe(caught.value)


async def test_what_is_said_of_real_errors_of_the_server(scene: Scene) -> None:
    proxy, client = scene.proxy, scene.client
    here = f"127.0.0.1:{proxy.port}"
    for action, text in [
        (top_error(10107, name="NotWritablePrimary"), "MongoDB: NotWritablePrimary (10107)"),
        (top_error(50), "MongoDB: MaxTimeMSExpired (50)"),
        (top_error(8000, name="AtlasError"), "MongoDB: AtlasError (8000): Atlas refuses; "
            "free space, or take a larger tier"),
        (item_error(112), "MongoDB: WriteConflict (112)"),
        (write_concern_error(64), "MongoDB did not confirm on a majority: WriteConcernTimeout (64)"),
        (cut(), f"{here}: the connection broke"),
    ]:  # fmt: skip
        with proxy.rule(on("insert"), action):
            assert await said(client) == text
    async with connect(proxy.uri, timeoutMS=500) as hasty:
        await hasty.admin.command("ping")
        with proxy.rule(on("insert"), delay(1)):
            assert await said(hasty) == f"{here}: timed out"


async def test_what_is_said_of_servers_out_of_reach(scene: Scene) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    real = f"127.0.0.1:{scene.stack.setup.mongo_port}"
    for uri, text in [
        (f"mongodb://{nowhere}", f"{nowhere}: connection refused"),
        ("mongodb://nowhere.invalid", "nowhere.invalid:27017: its name is not known"),
        (f"mongodb://me:secret@{real}", "MongoDB: AuthenticationFailed (18): user or password is wrong; "
            "correct the user, password and authSource"),
        (f"mongodb://{real}/?replicaSet=other", "MongoDB: it is no member of the replica set that the URI names"),
    ]:  # fmt: skip
        async with connect(uri, timeoutMS=5000 if "@" in uri else 1000) as client:
            assert await said(client) == text
    async with connect(scene.proxy.uri, timeoutMS=300) as client:
        scene.proxy.freeze()
        assert await said(client) == f"127.0.0.1:{scene.proxy.port}: timed out"
        scene.proxy.thaw()


async def test_what_is_said_of_refusals_holds_no_value(scene: Scene) -> None:
    marker = "Zq7planted"
    database = scene.client.refusals
    await database.create_collection("checked", validator={"$jsonSchema": {"properties": {"n": {"bsonType": "int"}}}})
    await database.unique.create_index("mail", unique=True)
    await database.unique.insert_one({"mail": marker})

    async def refused(collection: str, document: Document) -> tuple[str, str]:
        with pytest.raises(BulkWriteError) as caught:
            await database[collection].bulk_write([InsertOne(document)])
        return str(caught.value), describe(caught.value)

    for collection, document, text in [
        ("checked", {"n": marker},
            "the collection's validator refuses it: DocumentValidationFailure (121): n (bsonType)"),
        ("unique", {"mail": marker},
            "another document has the same value in the unique index mail_1 (mail): DuplicateKey (11000)"),
    ]:  # fmt: skip
        raw, described = await refused(collection, document)
        assert marker in raw
        assert described == text
    with scene.proxy.rule(on("insert"), change_reply(without_key_pattern)):
        assert (await refused("unique", {"mail": marker}))[1] == (
            "another document has the same value in the unique index mail_1: DuplicateKey (11000)"
        )


MARKERS = st.text(string.ascii_letters + string.digits, min_size=9, max_size=30).map(lambda text: f"Zq{text}")
TEXTS = st.sampled_from(
    [
        '{}',
        'E11000 duplicate key error collection: test.todos index: mail_1 dup key: {{ mail: "{}" }}',
        "E11000 duplicate key error index: test.todos.$mail_1 dup key: {{ : {} }}",
        'E11000 duplicate key error collection: a.b index: c_1 collation: {{ locale: "en" }} dup key: {{ c: "{}" }}',
        "Cannot create field 'b' in element {{a: {}}}",
        "Document failed validation :: caused by :: {{ consideredValue: '{}' }}",
        "Can't extract geo keys: {{ _id: 1, at: {} }}  unknown GeoJSON type",
        "language override unsupported: {}",
        "Plan executor error during update :: caused by :: index: {} dup key: x",
        "Index '{}' of 'code': 11000, timed out, closed",
        "db:27017: {} timed out",
    ]
)  # fmt: skip
CODES = st.one_of(
    st.sampled_from([11000, 121]),  # of which texts say more than the code
    st.sampled_from([None, *sorted(KNOWN)]),
    st.sampled_from(sorted(NAMES)),
    st.integers(0, 20_000),
)


@st.composite
def explanations(draw: st.DrawFn, marker: str, depth: int = 3) -> Document:
    """A validator's explanation of why it refuses a document that holds the marker."""
    rule: Document = {
        "operatorName": draw(st.sampled_from(["bsonType", "$gt", "required", "properties", "$expr"])),
        "specifiedAs": {draw(st.sampled_from(["a", "$expr"])): marker},
        "reason": f"{marker} is not it",
        "consideredValue": marker,
        "consideredValues": [marker, {marker: marker}],
    }
    nested = st.sampled_from(["details", "schemaRulesNotSatisfied", "clausesNotSatisfied", "propertiesNotSatisfied"])
    for field in draw(st.sets(nested, max_size=2)) if depth else ():
        inner = [draw(explanations(marker, depth - 1)) for _ in range(draw(st.integers(0, 2)))]
        rule[field] = [part | {"propertyName": "p"} for part in inner] if field.startswith("prop") else inner
    return rule


@st.composite
def errors(draw: st.DrawFn) -> tuple[str, Exception]:
    """An error that holds the marker wherever servers put values of documents, and the marker."""
    marker = draw(MARKERS)
    text, code = draw(TEXTS).format(marker), draw(CODES)
    failure: Document = {
        "index": 0,
        "errmsg": text,
        "op": {"q": {"id": marker}, "u": {"mail": marker}},
        "keyPattern": {"mail": 1},
        "keyValue": {"mail": marker},
        "errInfo": {"failingDocumentId": marker, "details": draw(explanations(marker))},
        **({} if code is None else {"code": code}),
    }
    for field in draw(st.sets(st.sampled_from(["keyPattern", "keyValue", "errInfo", "op"]))):
        del failure[field]
    error: Exception = draw(
        st.sampled_from(
            [
                bulk(failure),
                bulk(failure, failure, unconfirmed=failure),
                bulk(unconfirmed=failure),
                OperationFailure(text, code, failure),
                OperationFailure(text, code),
                WriteError(text, code, failure),
                DuplicateKeyError(text, code, failure),
                WriteConcernError(text, code, failure),
                WTimeoutError(text, code, failure),
                NotPrimaryError(text, failure),
                NotPrimaryError(text),
                AutoReconnect(f"db:27017: {text}"),
                NetworkTimeout(f"db:27017: {text}"),
                ServerSelectionTimeoutError(f"{text}, Topology Description: <TopologyDescription id: {marker}>"),
                ConfigurationError(text),
                InvalidDocument(text),
                ValueError(text),
                OSError(text),
                TimeoutError(text),
            ]
        )
    )
    return marker, error


@settings(max_examples=400, deadline=None)
@given(errors())
def test_no_text_holds_a_value_of_a_document(planted: tuple[str, Exception]) -> None:
    marker, error = planted
    text = describe(error)
    assert marker not in text
    assert 0 < len(text) <= LONGEST
    assert "\n" not in text
    for failure in error.details["writeErrors"] if isinstance(error, BulkWriteError) else ():
        assert marker not in describe_item(failure)
