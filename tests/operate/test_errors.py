"""All exceptions of the project have one base."""

import inspect
from collections.abc import Iterator
from importlib import import_module
from pkgutil import walk_packages
from types import ModuleType

import gears
import service
import worker
import writethrough
from gears.errors import WritethroughError


def modules() -> Iterator[ModuleType]:
    """All that can be imported: recipes run inside Redis, and what is run with `-m` ends in that."""
    for package in (gears, service, worker, writethrough):
        for found in walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith("gears.recipes.") and not found.name.endswith(".__main__"):
                yield import_module(found.name)


def test_every_exception_of_ours_has_the_one_base() -> None:
    ours = {
        each
        for module in modules()
        for _, each in inspect.getmembers(module, inspect.isclass)
        if issubclass(each, BaseException) and each.__module__ == module.__name__
    }
    assert len(ours) > 20
    assert [each.__qualname__ for each in ours if not issubclass(each, WritethroughError)] == []
