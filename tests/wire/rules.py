"""Which commands a rule is for, and whose turn it is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from random import Random

from tests.wire.actions import Action
from tests.wire.command import Command

ANY: tuple[str, ...] = ()
"""Every command but `hello`."""


@dataclass(frozen=True)
class On:
    """A choice of commands: by default, each that fits.

    Attributes:
        names: of commands; none for all but `hello`.
        collection: its name, or what says of a name whether it is meant; None for all.
        predicate: what says of a command whether it is meant.
        first: how many that fit are passed over.
        most: how many of the others are taken; None for all.
        probability: with which each of these is taken.
        seed: of the dice.
    """

    names: frozenset[str]
    collection: str | Callable[[str], bool] | None = None
    predicate: Callable[[Command], bool] | None = None
    first: int = 0
    most: int | None = None
    probability: float = 1.0
    seed: int = 0

    def each(self) -> "On":
        """Every one."""
        return replace(self, first=0, most=None, probability=1.0)

    def nth(self, number: int) -> "On":
        """The one with this number, from 1, only."""
        return replace(self, first=number - 1, most=1)

    def next(self, count: int = 1) -> "On":
        """So many, beginning with the next one."""
        return replace(self, first=0, most=count)

    def sometimes(self, probability: float, *, seed: int) -> "On":
        """Each with this probability."""
        return replace(self, probability=probability, seed=seed)

    def where(self, predicate: Callable[[Command], bool]) -> "On":
        """Those of which the predicate is true only."""
        return replace(self, predicate=predicate)

    def fits(self, command: Command) -> bool:
        """Whether the command is among those that are meant, whosever turn it is."""
        if command.name not in self.names if self.names else command.name == "hello":
            return False
        if isinstance(self.collection, str):
            if command.collection != self.collection:
                return False
        elif self.collection is not None and not self.collection(command.collection):
            return False
        return self.predicate is None or self.predicate(command)


def on(names: str | Iterable[str], collection: str | Callable[[str], bool] | None = None) -> On:
    """The commands of this name, or of these names, or `ANY`; on this collection."""
    return On(frozenset([names] if isinstance(names, str) else names), collection)


@dataclass
class Rule:
    """What is done with the commands that were chosen."""

    on: On
    action: Action
    fitting: int = 0
    hits: int = 0
    _dice: Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._dice = Random(self.on.seed)

    def takes(self, command: Command) -> bool:
        """Whether it is this command's turn; to be asked once for each command."""
        if not self.on.fits(command):
            return False
        self.fitting += 1
        if self.fitting <= self.on.first or self._dice.random() >= self.on.probability:
            return False
        if self.on.most is not None and self.hits >= self.on.most:
            return False
        self.hits += 1
        return True
