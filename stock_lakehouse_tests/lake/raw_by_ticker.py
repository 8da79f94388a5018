"""Raw in the layout until 0.1: a file a landing, ticker and year, in folders by both. Its columns are not in the files.

Here: turning a lake's raw into that layout, with nothing of the product. Not here: anything a test expects of it.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Collection
from pathlib import Path

RAW = "raw/stocks_daily"


def into_layout_by_ticker(root: Path, without: Collection[str] = (), sealed: bool = True) -> list[Path]:
    """Put the landed files of the lake at `root` into that layout; the new files. `without`: columns of later versions; first
    versions had no seal in a name either."""
    made = []
    for path in sorted((root / RAW).glob("year=*/*.csv")):
        written = path.read_bytes().decode()
        lines = list(csv.reader(io.StringIO(written, newline="")))
        quoted = _quoted_fields(written)
        header, rows = lines[0], list(zip(lines[1:], quoted[1:], strict=True))
        kept = [at for at, name in enumerate(header) if name not in ("ticker", "year", *without)]
        for ticker in sorted({row[header.index("ticker")] for row, _ in rows}):
            own = [(row, fields) for row, fields in rows if row[header.index("ticker")] == ticker]
            text = ",".join(f'"{header[at]}"' for at in kept) + "\n"
            text += "".join(",".join(fields[at] for at in kept) + "\n" for _, fields in own)
            days = sorted(day for row, _ in own if (day := row[header.index("date")][:10])[:4] == path.parent.name[5:])
            span = f"{days[0]}_{days[-1]}" if days else "0000-00-00_0000-00-00"
            landed, run = path.name.split("_")[3:5]
            content = text.encode()
            seal = f"_{len(content):012x}{hashlib.sha256(content).hexdigest()[:16]}" if sealed else ""
            folder = root / RAW / f"ticker={ticker.replace('^', '%5E')}" / path.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / f"bars_{span}_{landed}_{run}{seal}.csv"
            target.write_bytes(content)
            made.append(target)
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    return made


def _quoted_fields(text: str) -> list[list[str]]:
    """The fields of each line as they are written, with their quotes."""
    lines: list[list[str]] = [[""]]
    inside = False
    for character in text:
        if character == '"':
            inside = not inside
        if not inside and character == ",":
            lines[-1].append("")
        elif not inside and character == "\n":
            lines.append([""])
        else:
            lines[-1][-1] += character
    return lines[:-1]
