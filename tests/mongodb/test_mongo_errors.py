"""What MongoDB's errors mean to us."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    ExecutionTimeout,
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
from gears.in_mongo.errors.describe import LONGEST, describe_item
from gears.in_mongo.errors.known_codes import KNOWN, UNREADABLE, name_of, reason_of, remedy_of
from gears.in_mongo.errors.what_errors_mean import Cause, Meaning, failures_of, judge


def meaning_of(code: int | None) -> Meaning:
    return judge({"code": code}).meaning


def test_the_table() -> None:
    for code, known in KNOWN.items():
        assert known.reason, code
        assert known.source, code
        assert meaning_of(code) is not Meaning.RETRY
        assert len(describe_item({"code": code})) < LONGEST, "a table's text is never cut short"
    codes = NAMES.keys() | KNOWN.keys()
    by_meaning = {meaning: {code for code in codes if meaning_of(code) is meaning} for meaning in Meaning}
    assert {121, 171, 10334, 17280, 17419, 66, 15} <= by_meaning[Meaning.DOCUMENT]
    assert by_meaning[Meaning.DUPLICATE] == {11000, 11001, 12582}
    assert by_meaning[Meaning.INDEX_IN_THE_WAY] == {68, 85, 86}
    assert {13, 18, 61, 166, 8000, 14031} <= by_meaning[Meaning.SET_UP]
    assert by_meaning[Meaning.NO_USER] == {11, 31}
    assert by_meaning[Meaning.NO_COLLECTION] == {26}
    assert by_meaning[Meaning.CURSOR_GONE] == {43}
    assert all(remedy_of(code) is None for code in by_meaning[Meaning.DOCUMENT])


def test_only_documents_and_duplicates_are_refusals() -> None:
    refused = {code for code in NAMES if judge({"code": code}).refuses}
    assert refused == {code for code in NAMES if meaning_of(code) in (Meaning.DOCUMENT, Meaning.DUPLICATE)}


@pytest.mark.parametrize("code", [None, 0, 1, 2, 9, 14, 20, 22, 28, 48, 50, 64, 89, 91, 112, 189, 262, 365])
def test_what_blames_neither_the_document_nor_a_person_is_tried_again(code: int | None) -> None:
    assert meaning_of(code) is Meaning.RETRY


@given(st.integers())
def test_what_nobody_knows_is_tried_again(code: int) -> None:
    if code not in NAMES and code not in KNOWN:
        assert meaning_of(code) is Meaning.RETRY
    if code not in KNOWN:
        assert (reason_of(code), remedy_of(code)) == (None, None)
    assert name_of(code) == NAMES.get(code, f"Location{code}")


def bulk(**details: object) -> BulkWriteError:
    return BulkWriteError(details)


ITEM = {"index": 0, "code": 121}
CONCERN = {"code": 64, "errInfo": {"wtimeout": True}}


@pytest.mark.parametrize(
    ("error", "meaning", "cause"),
    [
        (OperationFailure("", 112), Meaning.RETRY, Cause.COMMAND),
        (OperationFailure(""), Meaning.RETRY, Cause.COMMAND),
        (OperationFailure("", 13), Meaning.SET_UP, Cause.COMMAND),
        (OperationFailure("", 85), Meaning.INDEX_IN_THE_WAY, Cause.COMMAND),
        (OperationFailure("", 11), Meaning.NO_USER, Cause.COMMAND),
        (OperationFailure("", 26), Meaning.NO_COLLECTION, Cause.COMMAND),
        (OperationFailure("", 43), Meaning.CURSOR_GONE, Cause.COMMAND),
        (OperationFailure("", 22), Meaning.RETRY, Cause.UNREADABLE),
        (OperationFailure("", 10334), Meaning.DOCUMENT, Cause.UNREADABLE),
        (WriteError("", 121), Meaning.DOCUMENT, Cause.COMMAND),
        (DuplicateKeyError("", 11000), Meaning.DUPLICATE, Cause.COMMAND),
        (ExecutionTimeout("", 50), Meaning.RETRY, Cause.SLOW),
        (WTimeoutError("", 64), Meaning.RETRY, Cause.SLOW),
        (WriteConcernError("", 22), Meaning.RETRY, Cause.ELSEWHERE),
        (WriteConcernError("", 100), Meaning.SET_UP, Cause.ELSEWHERE),
        (bulk(writeErrors=[ITEM], writeConcernErrors=[]), Meaning.RETRY, Cause.ELSEWHERE),
        (bulk(writeErrors=[], writeConcernErrors=[CONCERN]), Meaning.RETRY, Cause.SLOW),
        (AutoReconnect(""), Meaning.AWAY, Cause.ELSEWHERE),
        (NotPrimaryError(""), Meaning.AWAY, Cause.ELSEWHERE),
        (NetworkTimeout(""), Meaning.AWAY, Cause.SLOW),
        (ServerSelectionTimeoutError(""), Meaning.AWAY, Cause.SLOW),
        (ConfigurationError(""), Meaning.RETRY, Cause.ELSEWHERE),
    ],
)
def test_what_an_error_means(error: PyMongoError, meaning: Meaning, cause: Cause) -> None:
    verdict = judge(error)
    assert (verdict.meaning, verdict.cause) == (meaning, cause)


@pytest.mark.parametrize("code", sorted(UNREADABLE))
def test_a_document_that_makes_a_command_unreadable_may_be_at_fault_but_no_item_is_for_that(code: int) -> None:
    assert judge(OperationFailure("", code)).cause is Cause.UNREADABLE
    assert judge(WriteConcernError("", code)).cause is Cause.ELSEWHERE
    assert judge({"code": code}).cause is Cause.ELSEWHERE


def test_the_failures_of_a_bulk_write_count_only_if_the_rest_is_confirmed() -> None:
    assert failures_of(bulk(writeErrors=[ITEM], writeConcernErrors=[])) == [ITEM]
    assert failures_of(bulk()) == []
    with pytest.raises(BulkWriteError):
        failures_of(bulk(writeErrors=[ITEM], writeConcernErrors=[CONCERN]))


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (1, "InternalError"),
        (64, "WriteConcernTimeout"),
        (91, "ShutdownInProgress"),
        (189, "PrimarySteppedDown"),
        (280, "ChangeStreamFatalError"),
        (10107, "NotWritablePrimary"),
        (11602, "InterruptedDueToReplStateChange"),
        (16755, "Location16755"),
    ],
)
def test_names(code: int, name: str) -> None:
    assert name_of(code) == name
