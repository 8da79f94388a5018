"""Work that is done ahead: engine, network and disk are busy while the program uses what they returned before.

Not here: what is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """`items`, of which the next is computed in a thread while one is in use, so two are in memory. None ends them."""
    with ThreadPoolExecutor(1, "ahead") as worker:
        coming = worker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = worker.submit(next, items, None)
            yield item
