"""The cost tables of docs/deployment.md: each amount is what its arithmetic gives, and the sum is that of the amounts."""

from __future__ import annotations

import ast
import operator
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "deployment.md"
OPERATORS = {ast.Add: operator.add, ast.Mult: operator.mul, ast.Div: operator.truediv}


def rows() -> list[list[str]]:
    text = DOCUMENT.read_text(encoding="utf-8")
    costs = text[text.index("## Costs") : text.index("## What was never run")]
    lines = [line for line in costs.splitlines() if line.startswith("|")]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]


def value(text: str) -> Decimal:
    """The value of numbers joined by +, × and /, with brackets."""

    def of(node: ast.expr) -> Decimal:
        if isinstance(node, ast.BinOp):
            result: Decimal = OPERATORS[type(node.op)](of(node.left), of(node.right))
            return result
        assert isinstance(node, ast.Constant)
        return Decimal(str(node.value))

    tree = ast.parse(text.replace("×", "*"), mode="eval")
    return of(tree.body).quantize(Decimal("0.01"), ROUND_HALF_UP)


def test_every_amount_follows_from_its_assumption_and_the_sum_from_the_amounts() -> None:
    priced = [row for row in rows() if re.fullmatch(r"[0-9.]+", row[-1])]
    [total] = [index for index, row in enumerate(priced) if row[0] == "sum"]
    assert (total, len(priced)) == (10, 16)
    for row in priced[:total] + priced[total + 1 :]:
        assert value(row[-2]) == Decimal(row[-1]), row[0]
    assert sum(Decimal(row[-1]) for row in priced[:total]) == Decimal(priced[total][-1])


def test_every_number_of_an_assumption_is_in_its_arithmetic() -> None:
    for row in rows():
        if len(row) == 4 and re.search(r"\d", row[2]):
            prices = re.findall(r"0\.\d+", row[1])
            assert all(price in row[2] for price in prices), row[0]
