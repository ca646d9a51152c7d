"""Versions: the order of states, which MongoDB gives. Redis forgets; what MongoDB has acknowledged stays.

A version is a term and the number of a batch in it, in one int64, as kept under `_sync.v`. A term is begun in MongoDB,
by one atomic step, so that no two committers, and none before and after Redis has forgotten something, write the same
version.
"""

_BATCH_BITS = 40

MOST_TERMS = (1 << 63 - _BATCH_BITS) - 1


def version_of(term: int, batch: int) -> int:
    """The version of a term's batch."""
    return term << _BATCH_BITS | batch


def term_of(version: int) -> int:
    """The term in which a version was given."""
    return version >> _BATCH_BITS


def highest(term: int) -> int:
    """The highest version that there can be while this is the latest term; what is above was given elsewhere."""
    return version_of(term + 1, 0) - 1


def shown(version: int) -> str:
    """A version for people: `<term>.<batch>`."""
    return f"{term_of(version)}.{version & (1 << _BATCH_BITS) - 1}"


def is_committed(version: int) -> bool:
    """Whether it is a batch's: the one that is numbered 0 is given to what was committed before the term."""
    return version & (1 << _BATCH_BITS) - 1 > 0


def first_term(at_least: int, milliseconds: int) -> int:
    """The first term of a mapping.

    It lies above all versions of before there were terms, which were ids of stream entries, `milliseconds << 20 |
    number`; also above such as nobody has told of, as long as clocks were right: hence the time.

    Args:
        at_least: the highest version that is known.
        milliseconds: of the Unix epoch.
    """
    return max(term_of(at_least), term_of(milliseconds << 20)) + 1


_FOREIGN_TERMS = 1 << 16


def foreign(version: int) -> int:
    """The lowest version that is certainly somebody else's, for whoever gives this one.

    So many terms don't begin while a committer is held up. What lies between and was given elsewhere is told by the
    latest term; see `highest`.
    """
    return min(version + version_of(_FOREIGN_TERMS, 0), (1 << 63) - 1)


def reaches(held: int, version: int) -> bool:
    """Whether what MongoDB holds is at or above a version, and not certainly somebody else's."""
    return version <= held < foreign(version)
