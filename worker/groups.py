"""Exception groups, flattened."""


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions in a group that are no groups themselves."""
    return [
        leaf
        for error in group.exceptions
        for leaf in (leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


def reasons(group: BaseExceptionGroup[BaseException]) -> str:
    """What went wrong, in one line; each reason once."""
    return "; ".join(sorted({str(error)[:500] or type(error).__name__ for error in leaves(group)}))
