"""The questions of the page: a path and a query, like `bars/NVDA?years=3`, and the function that answers each.

Here: which question has which function, and how its arguments are read. Not here: the answers (ticker.py …), routes (server.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import date, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from stock_lakehouse.dashboards.compare import compare
from stock_lakehouse.dashboards.data import counts, data, warehouse
from stock_lakehouse.dashboards.errors import UnknownQuestionError, WrongQuestionError
from stock_lakehouse.dashboards.signals import signals
from stock_lakehouse.dashboards.ticker import about, bars, charts, restated
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.lake.reading import moment

AS_OF = "as_of"
# A function takes the view, then what is in the path, then by name what is in the query; its annotations say how text is read.
QUESTIONS: dict[str, Callable[..., Any]] = {
    "about": about,
    "charts": charts,
    "bars": bars,
    "restated": restated,
    "compare": compare,
    "signals": signals,
    "data": data,
    "counts": counts,
    "warehouse": warehouse,
}
# What a question says besides what the shown versions hold: the clock, other tables.
BEYOND_VERSIONS = frozenset({"about", "data", "counts", "warehouse"})


def answer(view: View, question: str) -> Any:
    """The answer to `question` of `view`, as values for JSON.

    Raises UnknownQuestionError if there is no such question, WrongQuestionError for a wrong argument; what the function raises.
    """
    path, _, query = question.partition("?")
    name, *given = map(unquote, path.split("/"))
    function = QUESTIONS.get(name)
    if function is None:
        raise UnknownQuestionError(f"there is no question {name!r}; there are {', '.join(QUESTIONS)}")
    signature = inspect.signature(function, eval_str=True)
    named = {key: text for key, text in parse_qsl(query, keep_blank_values=True) if key != AS_OF}
    try:
        bound = signature.bind(view, *given, **named)
    except TypeError as error:
        raise WrongQuestionError(
            f"{question}: {error}; arguments: {', '.join([*signature.parameters][1:]) or 'none'}"
        ) from None
    for key, text in list(bound.arguments.items())[1:]:
        bound.arguments[key] = _read(key, text, signature.parameters[key].annotation)
    return function(*bound.args, **bound.kwargs)


def as_of_in(question: str) -> datetime | None:
    """The moment that the question names as `as_of`; None for now. Raises InvalidDateError."""
    text = dict(parse_qsl(question.partition("?")[2])).get(AS_OF)
    return None if not text else moment(text)


def _read(name: str, text: str, kind: Any) -> Any:
    """An argument's text as its annotation says: a day, a whole number, a list of names, or text."""
    try:
        if kind in (date, date | None):
            return date.fromisoformat(text)
        if kind is int:
            return int(text)
    except ValueError:
        wanted = "whole number" if kind is int else "date like 2024-05-03"
        raise WrongQuestionError(f"{name}: {text!r} is no {wanted}") from None
    if kind == tuple[str, ...]:
        return tuple(filter(None, (part.strip() for part in text.split(","))))
    return text
