"""What MongoDB's error codes mean to us."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gears.in_mongo.errors.code_names import NAMES
from gears.in_mongo.errors.describe import LONGEST, describe_item
from gears.in_mongo.errors.what_codes_mean import KNOWN, Meaning, meaning_of, name_of, reason_of, remedy_of


def test_the_table() -> None:
    for code, known in KNOWN.items():
        assert known.reason, code
        assert known.source, code
        assert meaning_of(code) is known.meaning
        assert len(describe_item({"code": code})) < LONGEST, "a table's text is never cut short"
    by_meaning = {meaning: {code for code in KNOWN if meaning_of(code) is meaning} for meaning in Meaning}
    assert {121, 171, 10334, 17280, 17419, 66, 15} <= by_meaning[Meaning.DOCUMENT]
    assert by_meaning[Meaning.DUPLICATE] == {11000, 11001, 12582}
    assert {13, 18, 61, 85, 86, 166, 8000, 14031} <= by_meaning[Meaning.SET_UP]
    assert all(remedy_of(code) is None for code in by_meaning[Meaning.DOCUMENT])


@pytest.mark.parametrize("code", [None, 0, 1, 2, 9, 11, 14, 20, 22, 26, 28, 43, 48, 50, 64, 89, 91, 112, 189, 262, 365])
def test_what_blames_neither_the_document_nor_a_person_is_tried_again(code: int | None) -> None:
    assert meaning_of(code) is Meaning.RETRY


@given(st.integers())
def test_what_nobody_knows_is_tried_again(code: int) -> None:
    if code not in KNOWN:
        assert meaning_of(code) is Meaning.RETRY
        assert (reason_of(code), remedy_of(code)) == (None, None)
    assert name_of(code) == NAMES.get(code, f"Location{code}")


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
