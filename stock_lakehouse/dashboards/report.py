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
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from typing import Any

from stock_lakehouse.dashboards.answers import ReportError, answers
from stock_lakehouse.lake import Lake

YEARS = 3
MOST_TICKERS = 12
# TradingView's Lightweight Charts 5.2.0, unmodified. The package lwcharts carries it; its Python is not used, nor imported.
SCRIPT_PACKAGE = "lwcharts"
SCRIPT = "lwcharts/vendor/lightweight-charts.standalone.production.js"


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
    page = page_of(answers(lake, tickers, years, most))
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
    policy allows two scripts, by their digests.
    """
    room = files("stock_lakehouse.dashboards") / "page"
    page, style, app = ((room / name).read_text("utf-8") for name in ("index.html", "style.css", "app.js"))
    scripts = {"lightweight-charts.js": chart_script(), "app.js": app}
    digests = " ".join(f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'" for text in scripts.values())
    policy = f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data:"
    packed = {question: _base64(zlib.compress(_json(answer).encode(), 9)) for question, answer in answered.items()}
    embedded = (
        f'<script type="application/json" id="answers">{_json(packed).replace("<", chr(92) + "u003c")}</script>\n'
    )
    inside = {
        '<meta charset="utf-8">': f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<link rel="stylesheet" href="style.css">': f"<style>\n{style}</style>",
        **{f'<script src="{name}"></script>': f"<script>{text}</script>" for name, text in scripts.items()},
    }
    inside['<script src="app.js"></script>'] = embedded + inside['<script src="app.js"></script>']
    for tag, text in inside.items():
        before, tag_itself, after = page.partition(tag)
        assert tag_itself, f"page/index.html has no {tag}"
        page = before + text + after
    return page


def chart_script() -> str:
    """The text of the chart library's script. Raises ReportError if its package is not installed."""
    try:
        script = Path(str(distribution(SCRIPT_PACKAGE).locate_file(SCRIPT)))
        return script.read_text("utf-8")
    except (PackageNotFoundError, FileNotFoundError):
        raise ReportError(
            f"the package {SCRIPT_PACKAGE}, which carries the script of the charts, is not installed; `python install.py` "
            "installs what requirements.lock names"
        ) from None


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
