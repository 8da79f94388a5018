"""The page as one HTML file, with its scripts and answers inside: it opens from a disk or a mail and asks no network.

Here: putting the file together. Not here: the answers (answers.py) and the page (page/).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stock_lakehouse.dashboards.answers import ReportError, answers
from stock_lakehouse.dashboards.page_files import INDEX, named_files, page_files
from stock_lakehouse.lake import Lake

YEARS = 3
MOST_TICKERS = 12


def write_report(
    lake: Lake,
    path: Path,
    tickers: Sequence[str] | None = None,
    years: int = YEARS,
    most: int = MOST_TICKERS,
) -> Path:
    """Write the page of `lake` to the file `path`, which readers see whole, before or after; return `path`.

    `tickers`, `years` and `most` are those of `answers.answers`. Raises ReportError if the lake has no features, or none of a
    ticker, or if the file cannot be written; StorageError.
    """
    return write_page(page_of(answers(lake, tickers, years, most)), path)


def write_page(page: str, path: Path) -> Path:
    """Write an HTML text to the file `path`, which readers see whole, before or after; return `path`. Raises ReportError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(page, encoding="utf-8", newline="\n")
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ReportError(
            f"{path}: the report cannot be written ({error.strerror}); give a file in a folder that you may write to"
        ) from None
    return path


def page_of(answered: dict[str, Any]) -> str:
    """The HTML text with `answered`, the answers by question.

    Delivered text cannot run as a script: an answer is deflated and in Base64, a ticker in a question has no `<`, and the page's
    policy allows its own scripts, by their digests.
    """
    texts = page_files()
    tags = named_files(texts[INDEX])
    scripts = [texts[name] for name in tags if name.endswith(".js")]
    digests = " ".join(f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'" for text in scripts)
    policy = f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data:"
    packed = {question: _base64(zlib.compress(_json(answer).encode(), 9)) for question, answer in answered.items()}
    embedded = (
        f'<script type="application/json" id="answers">{_json(packed).replace("<", chr(92) + "u003c")}</script>\n'
    )
    meta = '<meta charset="utf-8">'
    inside = {meta: f'{meta}\n<meta http-equiv="Content-Security-Policy" content="{policy}">'}
    for name, tag in tags.items():
        inside[tag] = _inlined(name, texts[name])
    first_script = next(tag for name, tag in tags.items() if name.endswith(".js"))
    inside[first_script] = embedded + inside[first_script]
    page = texts[INDEX]
    for tag, text in inside.items():
        before, tag_itself, after = page.partition(tag)
        assert tag_itself, f"page/index.html has no {tag}"
        page = before + text + after
    return page


def _inlined(name: str, text: str) -> str:
    """The element that has the text of a file of the page inside."""
    if name.endswith(".svg"):
        return f'<link rel="icon" href="data:image/svg+xml;base64,{_base64(text.encode())}">'
    return f"<style>\n{text}</style>" if name.endswith(".css") else f"<script>{text}</script>"


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
