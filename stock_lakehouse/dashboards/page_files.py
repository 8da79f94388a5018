"""The files of the page, as they are served and as they go into one HTML file.

Here: their names and contents. Not here: routes (server.py), and the HTML file (report.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

from stock_lakehouse.lake.storage import LakeError

# TradingView's Lightweight Charts 5.2.0, unmodified. The package lwcharts carries it; its Python is not used, nor imported.
SCRIPT_PACKAGE = "lwcharts"
SCRIPT = "lwcharts/vendor/lightweight-charts.standalone.production.js"
CHART_SCRIPT = "lightweight-charts.js"
INDEX = "index.html"
# How index.html names the others, in their order.
NAMED = re.compile(r'<(?:link|script)\b[^>]*"/static/([\w.-]+)"[^>]*>(?:</script>)?')


class MissingScriptError(LakeError):
    """The package that carries the script of the charts is not installed. The message says what to do."""


def named_files(index: str) -> dict[str, str]:
    """The files that index.html names, in their order: the tag that names each, by its name."""
    return {match[1]: match[0] for match in NAMED.finditer(index)}


@lru_cache(maxsize=1)
def page_files() -> Mapping[str, str]:
    """The text of index.html and of each file that it names, by name. Raises MissingScriptError."""
    room = files("stock_lakehouse.dashboards") / "page"
    index = (room / INDEX).read_text("utf-8")
    texts = {
        name: chart_script() if name == CHART_SCRIPT else (room / name).read_text("utf-8")
        for name in named_files(index)
    }
    return {INDEX: index, **texts}


def chart_script() -> str:
    """The text of the chart library's script. Raises MissingScriptError if its package is not installed."""
    try:
        script = Path(str(distribution(SCRIPT_PACKAGE).locate_file(SCRIPT)))
        return script.read_text("utf-8")
    except (PackageNotFoundError, FileNotFoundError):
        raise MissingScriptError(
            f"the package {SCRIPT_PACKAGE}, which carries the script of the charts, is not installed; `python install.py` "
            "installs what requirements.lock names"
        ) from None
