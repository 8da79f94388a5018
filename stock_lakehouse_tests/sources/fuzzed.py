"""CSV files that no vendor should deliver, thrown by dice, and how many rows each must become.

Here: the files and the count, which shares no code with the reader. Not here: what a lake makes of them.
"""

from __future__ import annotations

import gzip
import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

COLUMNS = ("date", "open", "high", "low", "close", "adj_close", "volume")
SPELLED = (
    "Date,Open,High,Low,Close,Adj Close,Volume",
    "timestamp,open,high,low,close,adjusted_close,volume",
    '"Date","1. open","2. high","3. low","4. close","5. adjusted close","6. volume"',
    " trade_date , o , h , l , c , adj , v ",
    "Datum,Eröffnung,Hoch,Tief,Schluss,Adj Close,Stücke",
    "<DATE>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<ADJ CLOSE>,<VOL>",
    "timestamp,AAA.Open,AAA.High,AAA.Low,AAA.Close,AAA.Adjusted,AAA.Volume",
)
USELESS = (  # no file with one of these can be read
    "",
    "Date,Open,High,Low,Volume",
    "Open,High,Low,Close,Volume",
    "Date,Date,Open,High,Low,Close,Volume",
    "Date,Open,High,Low,Close,Closing Price,Volume",
    "Fecha,Apertura,Máximo,Mínimo,Cierre,Volumen",
    '"Date,Open,High,Low,Close,Volume',
    "2019-12-30,1,2,1,2,2,100",
    "Date:Open:High:Low:Close:Volume",
    "Date Open High Low Close Volume",
)
FORMULAS = (
    '=HYPERLINK("http://x.invalid/?"&A1;"look")',
    "=1+1",
    "+1+1",
    "-2",
    "@SUM(A1:A9)",
    "|cmd /C calc",
    "\t=1+1",
    "[red]1[/red]",
    "[/]",
    "[link=http://x.invalid]1[/link]",
    "\x1b[31m1\x1b]0;title\x07",
    "<script>alert(1)</script>",
    "![](http://x.invalid/i.png)",
    "`1` | 2 |",
    "'; DROP TABLE x; --",
)
NUMBERS = (
    "",
    " ",
    "-0.0",
    "0",
    "1e308",
    "1.7976931348623157e308",
    "1e309",
    "-1e308",
    "5e-324",
    "1e-300",
    "nan",
    "NaN",
    "inf",
    "-Infinity",
    "null",
    "None",
    "1d",
    "0x10",
    "1_000",
    "1.000,5",
    '"1,000.5"',
    "١٢٣",
    "\uff11\uff12",
    "9" * 400,
    "0." + "0" * 400 + "1",
    "9007199254740993",
    "1e15",
    "3.5",
    "a" * 5_000,
    *FORMULAS,
)
DAYS = (
    "",
    "0000-00-00",
    "0001-01-01",
    "1600-02-29",
    "1900-02-29",
    "2019-02-29",
    "2020-02-29",
    "2019-12-25",
    "2019-12-28",
    "2100-01-04",
    "9999-12-31",
    "10000-01-01",
    "-2019-12-30",
    "2019-13-01",
    "2019-12-32",
    "30.12.2019",
    "12/30/2019",
    "20191230",
    "43829",
    "1577664000",
    "2019-12-30T00:00:00Z",
    "2019-12-30 09:30:00-05:00",
    "2019-12-30x",
    "\uff12\uff10\uff11\uff19-12-30",
    "2019-12-30\x0b",
    *FORMULAS,
)
PATHS = (
    "../../etc/passwd",
    "..\\..\\x",
    "/etc/passwd",
    "C:\\x",
    "AAA/../../x",
    "AAA/year=2019",
    "ticker=AAA/year=2019",
    "%2e%2e%2fx",
    "..",
    ".",
    "AAA\\year=2019",
    "CON",
    "NUL",
    "__unreadable__",
    "AAA%00",
    "\u017f\u017f\u017f",
    "🚀",
    "A" * 300,
    "aaa",
    "",
    *FORMULAS,
)
NAMES = (  # of files, before the number
    "..%2f..%2fetc",
    "..\\..\\x",
    "ticker=AAA%2Fyear=2019 ",
    "AAA\nb",
    "AAA\r\x1b[31m",
    "🚀",
    "CON",
    "%2e%2e",
    "[red]",
    "-rf ",
    "=HYPERLINK(1)",
    "$(touch x)",
    ".hidden",
    "*",
    "\u017f",
    "x" * 230,
    os.fsdecode(b"caf\xe9"),
)
ENDS = ("\n", "\r\n", "\r")
ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "latin-1", "shift_jis", "utf-32")
BOMB = 20_000_000  # bytes that a small file unpacks to


@dataclass(frozen=True)
class Fuzzed:
    """A folder's files. `rows` maps the name of each that is well formed enough to say to the rows it must become."""

    files: int
    rows: dict[str, int]


def write_files(
    folder: Path, count: int, seed: int, tickers: Sequence[str], days: Sequence[date], outside: Path, bomb: int = BOMB
) -> Fuzzed:
    """Write `count` files to `folder`, the same for the same `seed`; among them links into `outside`."""
    dice = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, int] = {}
    for number in range(count):
        kind = dice.choices(
            ("bars", "bytes", "encoding", "useless", "long", "gzip", "link", "folder", "bomb"),
            (60, 8, 8, 8, 2, 10, 1, 1, 2 if number == count // 2 else 0.1),
        )[0]
        ending = dice.choice((".csv.gz", ".CSV.GZ")) if kind in ("gzip", "bomb") else dice.choice((".csv", ".CSV"))
        path = folder / f"{dice.choice(NAMES) if dice.random() < 0.3 else 'f'}{number}{ending}"
        of_ticker = folder / f"{dice.choice(tickers).lower() if dice.random() < 0.5 else dice.choice(tickers)}{ending}"
        named = kind != "folder" and dice.random() < 0.1 and not os.path.lexists(of_ticker)
        path = of_ticker if named else path
        expected = _write(dice, path, kind, named, tickers, days, outside, bomb)
        if expected is not None:
            rows[path.name] = expected
    return Fuzzed(count, rows)


def _write(
    dice: random.Random,
    path: Path,
    kind: str,
    named: bool,
    tickers: Sequence[str],
    days: Sequence[date],
    outside: Path,
    bomb: int,
) -> int | None:
    """Write one file; the rows that it must become, None where only the reader can say."""
    if kind == "folder":
        (path / "below.csv").mkdir(parents=True)
        return 0
    if kind == "link":
        path.symlink_to(outside / dice.choice(("secret.csv", "no file", ".")))
        return None
    if kind == "bomb":
        return _bomb(dice, path, bomb)
    content, rows = _content(dice, kind, named, tickers, days)
    path.write_bytes(content)
    return rows


def _content(
    dice: random.Random, kind: str, named: bool, tickers: Sequence[str], days: Sequence[date]
) -> tuple[bytes, int | None]:
    """The bytes of one file, and its rows."""
    if kind == "bytes":
        content = dice.randbytes(dice.randrange(400))
        after_a_header = b"Date,Open,High,Low,Close,Volume\n" + content
        return (after_a_header, _lines(after_a_header) - 1) if dice.random() < 0.6 else (content, None)
    if kind == "useless":
        return (dice.choice(USELESS) + "\n" + "2019-12-30,1,2,1,2,2,100\n" * dice.randrange(3)).encode(), 1
    header, lines = _table(dice, not named or dice.random() < 0.5, tickers, days)
    if kind == "long":
        lines.insert(dice.randrange(len(lines) + 1), _long(dice))
    ends = ENDS if dice.random() < 0.2 else (dice.choice(ENDS),)
    text = "".join(line + dice.choice(ends) for line in [header, *lines])
    text = text.rstrip("\r\n") if dice.random() < 0.2 else text
    if kind == "encoding":
        encoding = dice.choice(ENCODINGS)
        content = text.encode(encoding, "replace")
        # UTF-16 without its mark cannot be told from UTF-8 with NULs; latin-1 and shift_jis keep ASCII as it is.
        return content, 1 if encoding == "utf-16-le" else _lines(
            content, encoding if encoding[:3] == "utf" else "utf-8"
        ) - 1
    content = text.encode("utf-8", "surrogatepass")
    if dice.random() < 0.1:
        content = content.replace(b"0", dice.choice((b"\xc0\xb0", b"\xff", b"\xed\xa0\x80", b"\0")))
    return _packed(dice, content) if kind == "gzip" else (content, _lines(content) - 1)


def _packed(dice: random.Random, content: bytes) -> tuple[bytes, int | None]:
    """`content` as gzip, sound or harmed, and its rows."""
    packed = gzip.compress(content, mtime=0)
    rows = _lines(content) - 1
    at = dice.randrange(len(packed))
    harmed: tuple[tuple[bytes, int | None], ...] = (
        (packed, rows),
        (packed + bytes(7), rows),
        (content, 1),
        # A last line without an end breaks off with the file; behind \r there might be a \n.
        (packed + b"garbage", rows + 1 if content.endswith(b"\n") else None),
        (packed[:at], None),
        (packed[:at] + bytes([packed[at] ^ 1 << dice.randrange(8)]) + packed[at + 1 :], None),
    )
    return dice.choice(harmed)


def _table(
    dice: random.Random, has_symbols: bool, tickers: Sequence[str], days: Sequence[date]
) -> tuple[str, list[str]]:
    """A header that can be read, and lines most of which are nearly right."""
    header = dice.choice(SPELLED) + (",Symbol" if has_symbols else "")
    lines = []
    for _ in range(dice.choice((0, 1, 2, 3, 5, 8, 30))):
        close = round(dice.uniform(10, 500), 2)
        cells = [
            dice.choice(days).isoformat(),
            f"{close - 0.5:.2f}",
            f"{close + 1:.2f}",
            f"{close - 1:.2f}",
            f"{close}",
            f"{close * 0.97:.4f}",
            str(dice.randrange(10**9)),
        ]
        if has_symbols:
            cells.append(dice.choice(tickers))
        for _ in range(dice.choice((0, 0, 0, 1, 1, 2, 5))):
            at = dice.randrange(len(cells))
            cells[at] = dice.choice(DAYS if at == 0 else PATHS if at == len(COLUMNS) else NUMBERS)
        if dice.random() < 0.05:  # all four prices the same, so nothing but their size is wrong
            cells[1:6] = [dice.choice(NUMBERS)] * 5
        line = ",".join(f'"{cell}"' if "\t" in cell or dice.random() < 0.05 else cell for cell in cells)
        lines.append(
            dice.choices(
                (line, line + ",extra", line.rpartition(",")[0], line.replace(",", ',"', 1), "", "  ", '"', "\ufeff"),
                (90, 2, 2, 2, 1, 1, 1, 1),
            )[0]
        )
    return header, lines


def _long(dice: random.Random) -> str:
    """A line of up to three million characters, or one of nothing but quotes or commas."""
    size = dice.choice((99_000, 131_073, 1_100_000, 3_000_000))
    return dice.choice(
        (
            "x" * size,
            '"' * size,
            "," * size,
            "2019-12-30," + "9" * size + ",2,1,2,2,100",
            f"2019-12-30,1,2,1,2,2,100,{'é' * size}",
        )
    )


def _bomb(dice: random.Random, path: Path, size: int) -> int:
    """A small file that unpacks to one line, to blank lines, or to the same line again and again."""
    header = b"Date,Open,High,Low,Close,Volume\n"
    line = dice.choice((b"x", b"\n", b"2019-12-30,1,2,1,2,100\n"))
    with gzip.GzipFile(path, "wb", compresslevel=1, mtime=0) as file:
        file.write(header)
        for _ in range(size // 1_000_000):
            file.write(line * (1_000_000 // len(line)))
    return {b"x": 1, b"\n": 0}.get(line, size // 1_000_000 * (1_000_000 // len(line)))


def _lines(content: bytes, encoding: str = "utf-8") -> int:
    """Lines that are not blank, the header among them."""
    text = content.decode(encoding, "backslashreplace").removeprefix("\ufeff")
    return sum(1 for line in re.split("\r\n|\r|\n", text) if line.strip())
