"""How the bulk load and a daily increment grow with tickers, on one core and on two: wall time by step, and peak memory.

Belongs here: the sizes, the slopes and the chart of docs/engines.md. What is measured at a size is in bulk_load.py.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bulk_load import LAYERS, measure_loads
from benchmarks.figures import print_table
from benchmarks.process import ROOT

SIZES = (100, 500, 2_000)
CORES = (2, 1)
CHART = ROOT / "docs" / "growth.svg"
LOADS = ("bulk load", "daily increment")
ALL, OTHERS, MEMORY = "all", "checks, reports, start", "peak memory"
PLAIN = "{x:,.10g}"  # numbers on an axis: 2,000 instead of 2 × 10³
IN_PROPORTION = 0.15  # how far a slope may be from 1

# By cores, load and what is measured: (tickers, value) at each size, ascending.
Grown = dict[int, dict[str, dict[str, list[tuple[int, float]]]]]


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Restrict this process, and those that it starts, to `count` cores. Raises ValueError if that cannot be done."""
    if not hasattr(os, "sched_setaffinity"):
        if count != os.cpu_count():
            raise ValueError(f"--cores {count}: this system gives a process all of its {os.cpu_count()} cores")
        yield
        return
    before = os.sched_getaffinity(0)
    if count > len(before):
        raise ValueError(f"--cores {count}: there are {len(before)}")
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure_growth(folder: Path, sizes: Sequence[int], years: int, cores: Sequence[int], quiet: bool) -> Grown:
    """Both loads at each size on each number of cores, every one on a new lake below `folder`."""
    grown: Grown = {}
    for count in cores:
        for tickers in sizes:
            own = folder / f"{count}-{tickers}"
            own.mkdir()
            with on_cores(count):
                loads = measure_loads(own, tickers, years, quiet)
            shutil.rmtree(own)
            for load in LOADS:
                series = grown.setdefault(count, {}).setdefault(load, {})
                for what, value in _values(loads[load]).items():
                    series.setdefault(what, []).append((tickers, value))
            told = ", ".join(f"{load} {loads[load]['seconds']:.1f} s" for load in LOADS)
            print(f"{tickers} tickers × {years} years on {_cores(count)}: {told}", file=sys.stderr, flush=True)
    return grown


def _values(load: dict[str, Any]) -> dict[str, float]:
    """Seconds of each layer's step, of everything else and of all; GB of memory."""
    layers = {layer: load["steps"][layer] for layer in LAYERS}
    return {
        ALL: load["seconds"],
        **layers,
        OTHERS: load["seconds"] - sum(layers.values()),
        MEMORY: load["peak_gb"],
    }


def _cores(count: int) -> str:
    return f"{count} core{'s' * (count > 1)}"


def slope(points: Sequence[tuple[int, float]]) -> float:
    """The exponent of growth with tickers, by least squares over the logarithms: 1 is in proportion. NaN for one size."""
    logs = [(math.log(tickers), math.log(value)) for tickers, value in points if value > 0]
    if len(logs) < 2:
        return math.nan
    mean_x, mean_y = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def out_of_proportion(grown: Grown) -> list[tuple[str, str, str, float]]:
    """Cores, load, what and slope of everything that grows faster than tickers, or more slowly; the fastest first."""
    found = [
        (_cores(count), load, what, slope(points))
        for count, loads in grown.items()
        for load, series in loads.items()
        for what, points in series.items()
    ]
    return sorted((one for one in found if abs(one[3] - 1) > IN_PROPORTION), key=lambda one: -one[3])


def draw(grown: Grown, file: Path) -> None:
    """Seconds of each load by step, and memory, against tickers, all axes logarithmic. Fewer cores have dashed lines."""
    import matplotlib as mpl

    mpl.use("svg")
    # Text as text and no date, so that the same figures give the same small file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "growth", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(14, 6), layout="constrained")
    most = max(grown)
    for count, loads in grown.items():
        style = "-" if count == most else "--"
        for axis, load in zip(axes, LOADS, strict=False):
            shown = [ALL, *LAYERS, OTHERS] if count == most else [ALL]
            for place, what in enumerate(shown):
                _line(axis, loads[load][what], f"{what}, {_cores(count)}" if what == ALL else what, f"C{place}", style)
            axis.set(title=load, ylabel="seconds")
        for place, load in enumerate(LOADS):
            _line(axes[2], loads[load][MEMORY], f"{load}, {_cores(count)}", f"C{place}", style)
    axes[2].set(title=MEMORY, ylabel="GB")
    for axis in axes:
        axis.set(xscale="log", yscale="log", xlabel="tickers")
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_formatter(PLAIN)
            scale.set_minor_formatter("")
        axis.set_xticks([tickers for tickers, _ in grown[most][LOADS[0]][ALL]])
        axis.grid(visible=True, which="both", alpha=0.3)
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    axes[2].yaxis.set_minor_formatter(PLAIN)  # less than a power of ten is shown
    figure.savefig(file, metadata={"Date": None})


def _line(axis: Any, points: Sequence[tuple[int, float]], label: str, color: str, style: str) -> None:
    power = slope(points)
    named = label if math.isnan(power) else f"{label}: to the power of {power:.2f}"
    axis.plot(*zip(*points, strict=True), marker="o", linestyle=style, color=color, label=named)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, nargs="+", default=list(SIZES), help="ascending")
    parser.add_argument("--years", type=int, default=20, help="of 252 sessions")
    parser.add_argument("--cores", type=int, nargs="+", default=list(CORES), help="numbers of cores to use")
    parser.add_argument("--chart", type=Path, nargs="?", const=CHART, help="draw the chart (docs/growth.svg)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    parser.add_argument("--progress", action="store_true", help="show what the runs say, with seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        grown = measure_growth(Path(folder), options.tickers, options.years, options.cores, quiet=not options.progress)
    if options.chart:
        draw(grown, options.chart)
    if options.json:
        print(json.dumps({"figures": [], "grown": grown}))
        return
    for count, loads in grown.items():
        for load, series in loads.items():
            rows = [(what, *(value for _, value in points), slope(points)) for what, points in series.items()]
            sizes = [f"{tickers:,}" for tickers in options.tickers]
            print_table((f"{load}, {_cores(count)}: s, GB", *sizes, "power of tickers"), rows)
    for count, load, what, power in out_of_proportion(grown):
        kind = "faster than" if power > 1 else "more slowly than"
        print(f"{load} on {count}: {what} grows {kind} tickers, to the power of {power:.2f}")


if __name__ == "__main__":
    main()
