"""Servers that a machine may be unable to run: the tests that need one say NOT RUN and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

import pytest

from stock_lakehouse.streams.local_kafka import NotRunError

__all__ = ["NotRunError", "or_skipped"]

Server = TypeVar("Server")


@contextmanager
def or_skipped(name: str, server: AbstractContextManager[Server]) -> Iterator[Server]:
    """`server`, started; the test is skipped if it raises NotRunError at its start. `name`: of what the test is not run on."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(server)
        except NotRunError as error:
            pytest.skip(f"NOT RUN on {name}: {error}")
        yield started
