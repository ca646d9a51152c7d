"""JSON and BSON are one bijection: both directions, for all types, and against MongoDB's own Extended JSON."""

import struct
from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.json_util import CANONICAL_JSON_OPTIONS, RELAXED_JSON_OPTIONS
from bson.json_util import dumps as extended_json
from bson.json_util import loads as from_extended_json
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from gears.contract.mapping import Mapping
from gears.contract.mongo_form import encode, read_stored, stored_text
from gears.documents.id_types import ID_TYPES
from gears.documents.json_bson import Value, document_bson, element, same, special, value_bson, value_text
from gears.documents.validate import parse_object
from gears.errors import Refused

THINGS = Mapping("things", "test", "things")

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INT64 = st.integers(-(2**63), 2**63 - 1)


def _bytes_of(form: str, *values: Any) -> bytes:
    return struct.pack(form, *values)


def _string(text: bytes) -> bytes:
    return struct.pack("<i", len(text) + 1) + text + b"\0"


SCALARS: st.SearchStrategy[Value] = st.one_of(
    st.binary(min_size=8, max_size=8).map(lambda raw: (0x01, raw)),
    TEXTS.map(lambda text: (0x02, _string(text.encode()))),
    st.binary(max_size=6).map(lambda raw: (0x02, _string(raw))),  # nearly never UTF-8
    st.tuples(st.binary(max_size=20), st.integers(0, 255).filter(lambda subtype: subtype != 2)).map(
        lambda pair: (0x05, _bytes_of("<iB", len(pair[0]), pair[1]) + pair[0])
    ),
    st.binary(max_size=8).map(lambda raw: (0x05, _bytes_of("<iBi", len(raw) + 4, 2, len(raw)) + raw)),
    st.binary(max_size=8).map(lambda raw: (0x05, _bytes_of("<iB", len(raw), 2) + raw)),
    st.binary(min_size=16, max_size=16).map(lambda raw: (0x05, _bytes_of("<iB", 16, 4) + raw)),
    st.just((0x06, b"")),
    st.binary(min_size=12, max_size=12).map(lambda raw: (0x07, raw)),
    st.booleans().map(lambda value: (0x08, b"\1" if value else b"\0")),
    INT64.map(lambda ms: (0x09, _bytes_of("<q", ms))),
    st.integers(0, 253_402_300_799_999).map(lambda ms: (0x09, _bytes_of("<q", ms))),
    st.just((0x0A, b"")),
    st.tuples(NAMES, st.text("ilmsuxq", max_size=4)).map(
        lambda pair: (0x0B, pair[0].encode() + b"\0" + pair[1].encode() + b"\0")
    ),
    st.tuples(TEXTS, st.binary(min_size=12, max_size=12)).map(lambda pair: (0x0C, _string(pair[0].encode()) + pair[1])),
    TEXTS.map(lambda text: (0x0D, _string(text.encode()))),
    TEXTS.map(lambda text: (0x0E, _string(text.encode()))),
    INT64.map(lambda value: value_bson(value)),
    st.binary(min_size=8, max_size=8).map(lambda raw: (0x11, raw)),
    st.binary(min_size=16, max_size=16).map(lambda raw: (0x13, raw)),
    st.decimals().map(lambda value: (0x13, _decimal(str(value)))),
    st.sampled_from([(0xFF, b""), (0x7F, b"")]),
)


def _decimal(text: str) -> bytes:
    try:
        return Decimal128(text.lower().replace("snan", "nan")).bid
    except ArithmeticError:
        return Decimal128("0").bid


WRAPPERS: list[dict[str, Any]] = [
    {"$date": "2020-01-02T03:04:05.678Z"},
    {"$date": "1970-01-01T00:00:00Z"},
    {"$date": {"$numberLong": "-1"}},
    {"$date": {"$numberLong": "253402300800000"}},
    {"$oid": "5f0c5f5b8f1c2b0001a0b0c1"},
    {"$numberDecimal": "10.50"},
    {"$numberDecimal": "NaN"},
    {"$numberDecimal": "1E+3"},
    {"$uuid": "3b241101-e2bb-4255-8caf-4136c566a962"},
    {"$binary": {"base64": "AP8=", "subType": "80"}},
    {"$binary": {"base64": "", "subType": "00"}},
    {"$binary": {"base64": "YWJj", "subType": "02"}},
    {"$regularExpression": {"pattern": "^a", "options": "i"}},
    {"$timestamp": {"t": 4294967295, "i": 1}},
    {"$code": "f()"},
    {"$code": "f()", "$scope": {"at": {"$date": "2020-01-02T03:04:05Z"}}},
    {"$symbol": "s"},
    {"$dbPointer": {"$ref": "a.b", "$id": {"$oid": "5f0c5f5b8f1c2b0001a0b0c1"}}},
    {"$minKey": 1},
    {"$maxKey": 1},
    {"$undefined": True},
    {"$numberDouble": "NaN"},
    {"$numberDouble": "Infinity"},
    {"$numberDouble": "-Infinity"},
]
"""What each value that JSON lacks is written as."""

NEAR_WRAPPERS: list[dict[str, Any]] = [
    {"$date": "tomorrow"},
    {"$date": "2020-01-02T03:04:05.678Z", "tz": "CET"},
    {"$date": "2020-01-02T03:04:05.678000Z"},
    {"$date": "2020-01-02T03:04:05.000Z"},
    {"$date": "2020-01-02T03:04:05+00:00"},
    {"$date": "2020-01-02T04:04:05+01:00"},
    {"$date": "2020-01-02"},
    {"$date": "1960-01-02T03:04:05Z"},
    {"$date": 0},
    {"$date": {"$numberLong": "5"}},
    {"$date": {"$numberLong": "-05"}},
    {"$date": {"$numberLong": "9223372036854775808"}},
    {"$oid": "xyz"},
    {"$oid": "5F0C5F5B8F1C2B0001A0B0C1"},
    {"$oid": "5f0c5f5b8f1c2b0001a0b0c100"},
    {"$oid": ["5f0c5f5b8f1c2b0001a0b0c1"]},
    {"$numberLong": "5"},
    {"$numberInt": "5"},
    {"$numberDouble": "1.5"},
    {"$numberDouble": "nan"},
    {"$numberDecimal": "010.50"},
    {"$numberDecimal": 1},
    {"$uuid": "3B241101-E2BB-4255-8CAF-4136C566A962"},
    {"$uuid": "3b241101e2bb42558caf4136c566a962"},
    {"$binary": {"base64": "OyQRAeK7QlWMr0E2xWapYg==", "subType": "04"}},
    {"$binary": {"subType": "80", "base64": "AP8="}},
    {"$binary": {"base64": "AP8", "subType": "80"}},
    {"$binary": {"base64": "AP8=", "subType": "080"}},
    {"$binary": "AP8=", "$type": "80"},
    {"$regularExpression": {"pattern": "a", "options": "mi"}},
    {"$regularExpression": {"pattern": "a\0b", "options": ""}},
    {"$regex": "a", "$options": "i"},
    {"$timestamp": {"i": 1, "t": 1}},
    {"$timestamp": {"t": 1.0, "i": 1}},
    {"$timestamp": {"t": 4294967296, "i": 1}},
    {"$code": 5},
    {"$scope": {}, "$code": "f()"},
    {"$minKey": 1.0},
    {"$minKey": True},
    {"$minKey": "1"},
    {"$undefined": False},
    {"$ref": "users", "$id": "u1"},
    {"$ref": "#/definitions/b", "$id": "a", "$db": "x"},
    {"$ref": {"a": 1}},
    {"$symbol": 1},
    {"$bson": {"base64": "AAAAAAAA+H8=", "type": "01"}},
    {"$bson": {"base64": "", "type": "03"}},
    {"$bson": {"base64": "AQ==", "type": "xy"}},
    {"$": 1},
    {"": {"$": []}},
]
"""What is none of them."""

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | INT64
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | SCALARS.map(lambda value: from_json(value_text(*value, 0, len(value[1]))))
    | st.sampled_from(WRAPPERS + NEAR_WRAPPERS),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            NAMES | st.sampled_from([next(iter(each)) for each in WRAPPERS + NEAR_WRAPPERS]), inner, max_size=4
        )
    ),
    max_leaves=12,
)

VALUES: st.SearchStrategy[Value] = st.recursive(
    SCALARS | st.sampled_from(WRAPPERS + NEAR_WRAPPERS).map(lambda each: _plainly(each)),
    lambda inner: (
        st.dictionaries(
            NAMES | st.sampled_from(["$date", "$oid", "$bson", "$code", "$ref", "$scope"]), inner, max_size=3
        ).map(
            lambda fields: (
                0x03,
                document_bson(b"%c%b\0%b" % (tag, name.encode(), data) for name, (tag, data) in fields.items()),
            )
        )
        | st.lists(inner, max_size=3).map(
            lambda items: (0x04, document_bson(b"%c%d\0%b" % (tag, n, data) for n, (tag, data) in enumerate(items)))
        )
    ),
    max_leaves=8,
)


def _plainly(value: Any) -> Value:
    """As BSON, with all objects as objects."""
    if isinstance(value, dict):
        return 0x03, bson.encode(value)
    return value_bson(value)


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_json_comes_back_as_it_was(value: Any) -> None:
    tag, data = value_bson(value)
    assert same(from_json(value_text(tag, data, 0, len(data))), value)


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_bson_comes_back_as_it_was(value: Value) -> None:
    text = value_text(*value, 0, len(value[1]))
    assert value_bson(from_json(text, allow_inf_nan=False)) == value


@given(
    st.dictionaries(NAMES.filter(lambda name: not name.startswith(("$", "_"))), JSON, max_size=6), st.integers(0, 2**60)
)
@settings(max_examples=200, deadline=None)
def test_a_document_comes_back_with_its_names_in_order(document: dict[str, Any], version: int) -> None:
    document.pop("id", None)
    items = list(document.items())
    items.insert(version % (len(items) + 1), ("id", "x"))
    text = to_json(dict(items))
    found = read_stored(THINGS, encode(THINGS, "x", text, version).raw)
    assert found is not None
    assert (found.id, found.version) == ("x", version)
    shown = stored_text(THINGS, found)
    assert same(from_json(shown), dict(items))
    again = read_stored(THINGS, encode(THINGS, "x", shown, version).raw)
    assert again is not None
    assert again.raw == found.raw


@given(st.dictionaries(st.text("ab$c", max_size=2), VALUES, max_size=5))
@settings(max_examples=200, deadline=None)
def test_the_fast_way_to_a_stored_documents_text_says_the_same(fields: dict[str, Value]) -> None:
    parts = [b"%c%b\0%b" % (tag, name.encode(), data) for name, (tag, data) in fields.items()]
    found = read_stored(THINGS, document_bson([b"\x02id\0\x02\0\0\0x\0", *parts]))
    assert found is not None
    values = [f"{to_json(name).decode()}:{value_text(*value, 0, len(value[1]))}" for name, value in fields.items()]
    assert stored_text(THINGS, found).decode() == "{" + ",".join(['"id":"x"', *values]) + "}"


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=str)
def test_each_value_that_json_lacks_is_written_as_extended_json(wrapper: dict[str, Any]) -> None:
    value = special(wrapper)
    assert value is not None
    assert same(from_json(value_text(*value, 0, len(value[1]))), wrapper)
    if wrapper.keys() & {"$uuid", "$undefined", "$dbPointer", "$symbol"} or value[0] == 0x05:
        return  # the package bson has another form of these, or none
    theirs: Any = bson.decode(document_bson([b"%cx\0%b" % value]), bson.CodecOptions(datetime_conversion=4))["x"]
    assert from_json(extended_json({"x": theirs}, json_options=RELAXED_JSON_OPTIONS)) == {"x": wrapper}
    assert bson.encode(
        from_extended_json(
            to_json({"x": wrapper}), json_options=RELAXED_JSON_OPTIONS.with_options(datetime_conversion=4)
        )
    ) == bson.encode({"x": theirs})


@pytest.mark.parametrize("wrapper", NEAR_WRAPPERS, ids=str)
def test_what_is_nearly_such_a_value_is_an_object(wrapper: dict[str, Any]) -> None:
    assert special(wrapper) is None
    tag, data = value_bson({"x": wrapper})
    assert value_text(tag, data, 0, len(data)) == to_json({"x": wrapper}).decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime(2020, 1, 2, 3, 4, 5, 678000, tzinfo=UTC), '{"$date":"2020-01-02T03:04:05.678Z"}'),
        (datetime(1969, 12, 31, tzinfo=UTC), '{"$date":{"$numberLong":"-86400000"}}'),
        (DatetimeMS(2**62), '{"$date":{"$numberLong":"4611686018427387904"}}'),
        (ObjectId("5f0c5f5b8f1c2b0001a0b0c1"), '{"$oid":"5f0c5f5b8f1c2b0001a0b0c1"}'),
        (Binary(bytes(16), 4), '{"$uuid":"00000000-0000-0000-0000-000000000000"}'),
        (Binary(bytes(16), 3), '{"$binary":{"base64":"AAAAAAAAAAAAAAAAAAAAAA==","subType":"03"}}'),
        (Regex("a/b", "xi"), '{"$regularExpression":{"pattern":"a/b","options":"ix"}}'),
        (Timestamp(1, 2), '{"$timestamp":{"t":1,"i":2}}'),
        (Code("f", {"a": Int64(1)}), '{"$code":"f","$scope":{"a":1}}'),
        ([MinKey(), MaxKey()], '[{"$minKey":1},{"$maxKey":1}]'),
        (Int64(5), "5"),
        (5.0, "5.0"),
        (-0.0, "-0.0"),
        (1e16, "1e16"),
        (1.5e300, "1.5e300"),
        (1e-7, "1e-7"),
        ("\x00\x1f\"\\/\x7fé😀\u2028", '"\\u0000\\u001f\\"\\\\/\x7fé😀\u2028"'),
        ({"$minKey": 1}, '{"$bson":{"base64":"EgAAABAkbWluS2V5AAEAAAAA","type":"03"}}'),
    ],
    ids=str,
)  # fmt: skip
def test_values_are_written_as_redisjson_and_extended_json_write_them(value: Any, text: str) -> None:
    raw = bson.encode({"x": value})
    assert value_text(0x03, raw, 0, len(raw)) == f'{{"x":{text}}}'
    assert element("x", from_json(text)) in (
        raw[4:-1],
        bson.encode({"x": 5})[4:-1],
        bson.encode({"x": Code("f", {"a": 1})})[4:-1],
    )


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("str", "a/b ü", "a/b ü"),
        ("int", "7", 7),
        ("int", "-9223372036854775808", -(2**63)),
        ("int", "0", 0),
        ("oid", "5f0c5f5b8f1c2b0001a0b0c1", {"$oid": "5f0c5f5b8f1c2b0001a0b0c1"}),
        ("uuid", "3b241101-e2bb-4255-8caf-4136c566a962", {"$uuid": "3b241101-e2bb-4255-8caf-4136c566a962"}),
    ],
)
def test_each_type_of_ids_has_one_text(name: str, text: str, shown: Any) -> None:
    id_type = ID_TYPES[name]
    tag, data = id_type.bson(text)
    raw = document_bson([b"%cid\0%b" % (tag, data)])
    assert bson.encode({"id": id_type.parse(text)}) == raw
    assert from_json(id_type.json_text(text)) == shown == id_type.json(text)
    assert value_bson(shown) == (tag, data)
    assert id_type.text_in(shown) == text
    assert id_type.text(bson.decode(raw, bson.CodecOptions(uuid_representation=0))["id"]) == text


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("str", ["", "a\0b", "x" * 1025, "ü" * 513]),
        ("int", ["007", "-0", "+7", "7.0", "1e3", " 7", "9223372036854775808", "-9223372036854775809", "", "a", "٣"]),
        ("oid", ["5F0C5F5B8F1C2B0001A0B0C1", "5f0c5f5b8f1c2b0001a0b0c", "", "7"]),
        ("uuid", ["3B241101-e2bb-4255-8caf-4136c566a962", "3b241101e2bb42558caf4136c566a962", "", "{}"]),
    ],
)
def test_any_other_text_is_no_id(name: str, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(Refused):
            ID_TYPES[name].parse(text)


@pytest.mark.parametrize("name", ID_TYPES)
@pytest.mark.parametrize("shown", [None, True, 7.5, 7.0, [], {}, {"$oid": 5}, {"$uuid": "x"}, {"a": "7"}, [7]])
def test_what_a_document_shows_may_be_no_id_at_all(name: str, shown: Any) -> None:
    assert ID_TYPES[name].text_in(shown) is None


def test_an_underscored_id_keeps_its_place_though_mongodb_moves_it() -> None:
    users = Mapping("users", "shop", "users", "_id", id_type_name="oid")
    document_id = "5f0c5f5b8f1c2b0001a0b0c1"
    for text in (
        b'{"_id":{"$oid":"5f0c5f5b8f1c2b0001a0b0c1"},"a":1}',
        b'{"a":1,"_id":{"$oid":"5f0c5f5b8f1c2b0001a0b0c1"},"b":2}',
        b'{"at":{"$date":"2020-01-02T03:04:05Z"},"b":2,"_id":{"$oid":"5f0c5f5b8f1c2b0001a0b0c1"}}',
    ):
        encoded = encode(users, document_id, text, 5)
        assert encoded.has_its_id
        assert next(iter(bson.decode(encoded.raw))) == "_id"
        found = read_stored(users, encoded.raw)
        assert found is not None
        assert stored_text(users, found) == text


def test_depth_counts_as_mongodb_counts() -> None:
    deepest = b'{"a":' * 98 + b'{"at":{"$date":{"$numberLong":"-1"}},"c":{"$code":"f","$scope":{}}}' + b"}" * 98
    parse_object(deepest, THINGS.reserved)
    with pytest.raises(Refused, match="100 levels"):
        parse_object(b'{"a":' * 100 + b"{}" + b"}" * 100, THINGS.reserved)


def test_canonical_extended_json_is_no_other_name_for_a_number() -> None:
    text = extended_json({"a": 5, "b": Int64(5), "c": 1.5}, json_options=CANONICAL_JSON_OPTIONS)
    assert same(from_json(value_text(0x03, *_span(value_bson(from_json(text))[1]))), from_json(text))


def _span(raw: bytes) -> tuple[bytes, int, int]:
    return raw, 0, len(raw)
