"""The forms that delivered text may have: numbers, split ratios, and words for a missing value.

Here: the grammar, as constants, and how to read a text in Arrow. `transforms/processed.py` applies the same grammar in Spark.
Not here: dates (sources/) and whether a value is possible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# Compared in lower case, trimmed. pandas writes nan, NaN and <NA>; R writes NA; Excel #N/A; Python None; SQL null.
MISSING = ("", "none", "na", "n/a", "#n/a", "#na", "nan", "<na>", "null", "nil", "-", "--", "\u2013", "\u2014")
BLANKS = " \t\u00a0\u202f"  # trimmed from text; files of spreadsheets have no-break spaces
SPACES = "'\u2019 \u00a0\u202f"  # thousands separators that are never a decimal mark
CURRENCY = "$€£¥"
# \z, not $: in Java $ also matches before a line end at the text's end. [0-9], not \d: engines differ in what is a digit ("١").
# A plain number; thousands in groups of three, or as in India (12,34,567.5). A suffix K, M, B or T means an exponent.
NUMBER = r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?\z"
GROUPED_POINT = (
    rf"^[+-]?([0-9]{{1,3}}([,{SPACES}][0-9]{{3}})+|[0-9]{{1,2}}(,[0-9]{{2}})+,[0-9]{{3}})([.][0-9]*)?(E[0-9]+)?\z"
)
GROUPED_COMMA = rf"^[+-]?[0-9]{{1,3}}([.{SPACES}][0-9]{{3}})+(,[0-9]*)?(E[0-9]+)?\z"
PLAIN_COMMA = r"^[+-]?([0-9]+,?[0-9]*|,[0-9]+)([eE][+-]?[0-9]+)?\z"
SUFFIX = {"K": "E3", "M": "E6", "B": "E9", "T": "E12"}
SUFFIXED = rf"^([+-]?[0-9.,][0-9.,{SPACES}]*) ?([KMBTkmbt])\z"
SYMBOL_BEFORE = rf"^[{CURRENCY}] ?"
SYMBOL_BEHIND_SIGN = rf"^([+-])[{CURRENCY}]"
SYMBOL_BEHIND = rf" ?[{CURRENCY}]\z"
# The three at once: the sign is group 1, what follows it group 2.
MONEY = rf"^(?:[{CURRENCY}] ?)?(?:([+-])[{CURRENCY}]?)?(.*?)(?: ?[{CURRENCY}])?\z"
INFINITE = r"^[+-]?(inf|infinity)\z"
# New shares for old ones: 4:1, 1/10, 4-for-1, 3 for 2. Yahoo and Nasdaq write the new shares first.
RATIO = r"^([0-9]+[.]?[0-9]*) ?(?::|/|-for-| for |-to-| to |-) ?([0-9]+[.]?[0-9]*)\z"


def plain_numbers(texts: pa.Array | pa.ChunkedArray, decimal: str | None = None) -> pa.Array | pa.ChunkedArray:
    """Each text as a plain number (`NUMBER`): 1,184.40 as 1184.40, $5 as 5, 45.3M as 45.3E6; null for a missing value.

    `decimal` is "," in a file with decimal commas. Text of another form is returned unchanged, but trimmed.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    def matches(values: pa.Array, pattern: str) -> pa.Array:
        return pc.match_substring_regex(values, pattern.replace(r"\z", "$"))

    text = pc.utf8_trim(texts, BLANKS)
    text = pc.if_else(
        pc.is_in(pc.utf8_lower(text), value_set=pa.array(MISSING, pa.string())), pa.scalar(None, pa.string()), text
    )
    text = pc.replace_substring_regex(text, SYMBOL_BEFORE, "")
    text = pc.replace_substring_regex(text, SYMBOL_BEHIND_SIGN, r"\1")
    text = pc.replace_substring_regex(text, SYMBOL_BEHIND.replace(r"\z", "$"), "")
    suffixed = matches(text, SUFFIXED)
    for letter, exponent in SUFFIX.items():
        has_letter = pc.and_(suffixed, pc.ends_with(text, letter, ignore_case=True))
        text = pc.if_else(
            has_letter,
            pc.binary_join_element_wise(pc.utf8_rtrim(text, f"{letter}{letter.lower()} "), exponent, ""),
            text,
        )
    if decimal == ",":
        grouped, plain = matches(text, GROUPED_COMMA), matches(text, PLAIN_COMMA)
        ungrouped = pc.replace_substring_regex(text, f"[.{SPACES}]", "")
        text = pc.if_else(grouped, ungrouped, text)
        read = pc.or_(grouped, plain)
        # With a decimal comma 100.52 is not a number, since the point can only separate thousands. "?" makes it unreadable.
        unread = pc.binary_join_element_wise("?", text, "")
        text = pc.if_else(read, pc.replace_substring(text, ",", "."), pc.if_else(matches(text, NUMBER), unread, text))
    else:
        ungrouped = pc.replace_substring_regex(text, f"[,{SPACES}]", "")
        text = pc.if_else(matches(text, GROUPED_POINT), ungrouped, text)
    return text


def numbers(texts: pa.Array | pa.ChunkedArray, decimal: str | None = None) -> pa.Array | pa.ChunkedArray:
    """The double that each text means; null where it is not a number or not finite."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = plain_numbers(texts, decimal)
    is_number = pc.match_substring_regex(text, NUMBER.replace(r"\z", "$"))
    values = pc.if_else(is_number, text, pa.scalar(None, pa.string())).cast(pa.float64())
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
