"""The tree of exceptions: each shows whose fault it is, and the packages' docstrings list it correctly."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING

import pytest

import receiver
import sender
import shared
from shared.errors import CallerError, NeighbourError, OperatorError, OrderbellError

if TYPE_CHECKING:
    from types import ModuleType

BRANCHES = (CallerError, OperatorError, NeighbourError)
OF_NOBODY = {"Problem"}  # says it by its status


def exceptions_of(package: ModuleType) -> list[type[BaseException]]:
    """The exceptions that leave the module that defines them."""
    names = [name for _, name, _ in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    modules = [importlib.import_module(name) for name in names if "migrations" not in name]
    return [
        found
        for module in modules
        for name, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, BaseException) and found.__module__ == module.__name__ and name[0] != "_"
    ]


@pytest.mark.parametrize("package", [shared, sender, receiver])
def test_every_exception_says_whose_fault_it_is(package: ModuleType) -> None:
    found = exceptions_of(package)
    assert found
    rootless = [one for one in found if not issubclass(one, OrderbellError)]
    assert rootless == []
    undecided = {one.__name__ for one in found if not issubclass(one, BRANCHES)}
    assert undecided - OF_NOBODY <= {OrderbellError.__name__}


@pytest.mark.parametrize("package", [shared, sender, receiver])
def test_the_packages_head_prints_its_tree(package: ModuleType) -> None:
    assert package.__doc__ is not None
    printed = [line for line in package.__doc__.splitlines() if line.startswith("    ")]
    assert "\n".join(printed) == "\n".join(tree(package))


def tree(package: ModuleType) -> list[str]:
    found = set(exceptions_of(package)) - {OrderbellError, *BRANCHES}

    def below(parent: type[BaseException], depth: int) -> list[str]:
        names = sorted((one.__name__, one) for one in found if parent_of(one, found) is parent)
        return [line for name, one in names for line in (f"{'    ' * depth}{name}", *below(one, depth + 1))]

    lines = []
    for branch in (*BRANCHES, OrderbellError):
        if under := below(branch, 2):
            lines += [f"    {branch.__name__}", *under]
    return lines


def parent_of(exception: type[BaseException], found: set[type[BaseException]]) -> type[BaseException]:
    return next(
        base for base in exception.__mro__[1:] if base in found or base in (*BRANCHES, OrderbellError)
    )


if __name__ == "__main__":  # what to print
    for package in (shared, sender, receiver):
        print(package.__name__, *tree(package), sep="\n")
