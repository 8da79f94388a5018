"""A test whose server cannot run here says so; one whose server fails later fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stock_lakehouse_tests.not_run import NotRunError, or_skipped


@contextmanager
def server(is_there: bool) -> Iterator[int]:
    if not is_there:
        raise NotRunError("needs a harbour")
    yield 7


def test_a_server_that_cannot_run_skips_its_test_and_says_why() -> None:
    with (
        pytest.raises(pytest.skip.Exception, match="NOT RUN on a ship: needs a harbour"),
        or_skipped("a ship", server(False)),
    ):
        pass
    with or_skipped("a ship", server(True)) as port:
        assert port == 7


def test_what_fails_after_the_start_is_no_reason_to_skip() -> None:
    with pytest.raises(NotRunError), or_skipped("a ship", server(True)):
        raise NotRunError("later")
