"""Work that is done ahead: nothing is left out or reordered, and an error comes after the items before it."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest

from stock_lakehouse.lake.ahead import ahead


def test_the_next_item_is_computed_while_one_is_in_use() -> None:
    began = Event()

    def items() -> Iterator[int]:
        yield 1
        began.set()
        yield 2

    found = []
    for item in ahead(items()):
        assert began.wait(10), "the next item is not computed before this one is done with"
        found.append(item)
    assert found == [1, 2]


def test_items_before_an_error_are_given_out_first() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the network is gone")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(OSError, match="the network is gone"):
        next(coming)
