"""Errors of what the page asks. Each message is a sentence that the page shows; the lake's own errors are shown as they are."""

from __future__ import annotations

from collections.abc import Sequence

from stock_lakehouse.lake.storage import LakeError


class EmptyLakeError(LakeError):
    """The lake has not what the page shows. The message says what to do."""


class TickerUnknownError(LakeError):
    """The lake has no bars of a ticker. `nearest`: tickers that it has and that are spelled alike."""

    def __init__(self, message: str, nearest: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.nearest = tuple(nearest)


class UnknownQuestionError(LakeError):
    """There is no such question. The message lists those that there are."""


class WrongQuestionError(LakeError):
    """An argument of a question is missing, unknown or no value of its kind."""
