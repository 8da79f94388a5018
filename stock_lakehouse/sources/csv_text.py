"""From the bytes of a CSV file to the fields of its lines.

Here: encodings, line ends, quotes, ragged lines. Not here: which column is which (csv_header.py) and what the text means.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

MAX_LINE = 4_000  # characters of an unreadable line that are kept
# No line of a bar is longer. A longer line is never split, so memory stays bounded whatever a file holds or unpacks to.
LONGEST_LINE = 100_000  # characters
# Byte order marks. UTF-32 comes first, because its mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def open_text(path: Path) -> io.TextIOWrapper:
    """The text of a file, plain or gzip: UTF-16 or UTF-32 by its byte order mark, else UTF-8.

    Bytes that are invalid in the encoding are read as \\xNN, so nothing is lost and everything can be written again.
    """
    is_gzip = path.name.lower().endswith(".gz")
    with contextlib.ExitStack() as closing:
        file = closing.enter_context(cast("BinaryIO", gzip.GzipFile(path)) if is_gzip else path.open("rb"))
        start = file.read(4)
        file.seek(0)
        encoding = next((name for mark, name in MARKS if start.startswith(mark)), "utf-8")
        text = io.TextIOWrapper(file, encoding=encoding, errors="backslashreplace", newline="")
        closing.pop_all()  # from here on the wrapper closes the file
    return text


def lines_of(text: TextIO) -> Iterator[str]:
    """The lines of `text`.

    A line longer than LONGEST_LINE is cut there, after one more character, and a SHA-256 of the rest is appended: `split_line`
    still rejects it, and two long lines stay distinct.
    """
    while line := text.readline(LONGEST_LINE + 1):
        if len(line) <= LONGEST_LINE or line.endswith(("\n", "\r")):
            yield line
            continue
        digest = hashlib.sha256()
        rest = line
        while rest and not rest.endswith(("\n", "\r")):
            rest = text.readline(LONGEST_LINE)
            digest.update(rest.rstrip("\r\n").encode())
        yield f"{line}… sha256 {digest.hexdigest()}"


def split_line(line: str, separator: str = ",") -> list[str] | str:
    """The fields of one line; an empty list for a blank line; a text with the reason if the line cannot be split.

    A file is split line by line, not at once: an unclosed quote would otherwise swallow every row after it.
    """
    line = line.rstrip("\r\n")
    if not line.strip():
        return []
    if len(line) > LONGEST_LINE or "\0" in line:
        return "a NUL character" if len(line) <= LONGEST_LINE else f"longer than {LONGEST_LINE:,} characters"
    if '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as error:
        # csv.reader does not accept blanks after a closing quote.
        trimmed = re.sub(rf'(?<!")" +(?={re.escape(separator)}|$)', '"', line)
        return str(error) if trimmed == line else split_line(trimmed, separator)


def unreadable(line: str) -> str:
    """The text that is kept of a line that cannot be split. A long line is cut, but stays distinct from other lines."""
    line = line.rstrip("\r\n").replace("\0", "\\0")
    if len(line) > MAX_LINE:  # landing recognises such a line by its text
        line = f"{line[:MAX_LINE]}… sha256 {hashlib.sha256(line.encode()).hexdigest()}"
    return line
