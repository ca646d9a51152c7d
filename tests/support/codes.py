"""The codes of MongoDB's list that go through whole systems; what each code means is a table (test_mongo_errors).

A system treats codes with the same meaning alike, save those that the driver knows: all of these, and some of the rest.
"""

from pymongo.helpers_shared import _RETRYABLE_ERROR_CODES, _SHUTDOWN_CODES

from gears.in_mongo.errors.code_names import NAMES
from gears.in_mongo.errors.known_codes import KNOWN, UNREADABLE
from gears.in_mongo.errors.what_errors_mean import Meaning, judge

GONE = 987_654
"""A code that nobody knows."""

_OF_THE_DRIVER = frozenset({18, 43, 50, 64, 112, 391}) | _RETRYABLE_ERROR_CODES | _SHUTDOWN_CODES
_SOME = 12

_rest = sorted(NAMES.keys() - KNOWN.keys() - _OF_THE_DRIVER - UNREADABLE)
SAMPLE = sorted({*_OF_THE_DRIVER, *UNREADABLE, *KNOWN, *_rest[::_SOME], GONE})
"""What the driver knows, what we know, and some of the rest."""

REFUSING = [code for code in SAMPLE if judge({"code": code}).meaning is Meaning.DOCUMENT]
RETRIED = [code for code in SAMPLE if not judge({"code": code}).refuses]
