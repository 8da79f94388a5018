"""Loads by changed ticker-years give what a load of everything gives, whatever happened to the lake before, in any order."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import deltalake
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stock_lakehouse.tables import CURATED
from stock_lakehouse_tests.warehouse.lakes import NATIVE, ODD, Pair, WarehouseLake

Made = Callable[..., WarehouseLake]
PAIRS = st.tuples(st.sampled_from(ODD), st.sampled_from((2021, 2022, 2023)))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("correct"), PAIRS),
        st.tuples(st.just("withdraw"), PAIRS),
        st.tuples(st.sampled_from(("scatter", "compact", "restore", "rebuild", "load")), st.none()),
    ),
    min_size=3,
    max_size=9,
)


def do(
    place: WarehouseLake, number: int, step: str, pair: Pair | None, kept: list[tuple[int, dict[Pair, object]]]
) -> None:
    stored = place.lake.delta[CURATED.name]
    held = place.held["stock_prices"]
    if step == "correct":
        assert pair is not None
        place.put([pair], count=1 + number % 4, seed=number)
    elif step == "withdraw":
        assert pair is not None
        place.put([pair], count=0)
    elif step == "scatter":  # a file per row, in one ticker-year
        pairs = sorted(held)
        if pairs:
            chosen = pairs[number % len(pairs)]
            stored.open().delete(f"ticker = '{chosen[0]}' AND year = {chosen[1]}")
            for row in range(held[chosen].num_rows):
                deltalake.write_deltalake(stored.open(), held[chosen].slice(row, 1), mode="append")
    elif step == "compact":
        stored.open().optimize.compact()
    elif step == "restore" and kept:
        version, rows = kept[number % len(kept)]
        if version < stored.open().version():
            stored.open().restore(version)
        place.held["stock_prices"] = dict(rows)  # type: ignore[arg-type]
    elif step == "rebuild":
        place.lake.storage.delete([file.path for file in place.lake.storage.walk(stored.table.path)])
        stored.prepare()
        for rows_of in held.values():
            deltalake.write_deltalake(stored.open(), rows_of, mode="append")
        kept.clear()
    elif step == "load":
        place.load()
    if step != "rebuild":
        kept.append((stored.open().version(), dict(place.held["stock_prices"])))


@pytest.mark.parametrize("layout", ["ticker_year", pytest.param("year", marks=pytest.mark.soak)])
@pytest.mark.parametrize("examples", [2, pytest.param(40, marks=pytest.mark.soak)])
def test_incremental_loads_equal_a_full_load(made: Made, layout: str, examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # an example takes seconds, and to make a failing one smaller hundreds of them
    )
    @given(STEPS)
    def run(steps: list[tuple[str, Pair | None]]) -> None:
        schema = f"s{uuid.uuid4().hex[:8]}"
        place = made(layout=layout, schema_name=schema, external_schema=f"{schema}_lake")
        place.put([(ticker, 2022) for ticker in ODD[:2]])
        kept: list[tuple[int, dict[Pair, object]]] = []
        for number, (step, pair) in enumerate(steps):
            do(place, number, step, pair, kept)
        place.load()
        place.assert_equal()
        incremental = {name: place.native(name) for name in NATIVE}
        sums = checksums(place)
        # The same server has a second, empty warehouse, into which everything is loaded at once.
        place.redshift = place.redshift.model_copy(update={"schema_name": f"{schema}_fresh"})
        place.load()
        assert {name: place.native(name) for name in NATIVE} == incremental
        assert checksums(place) == sums
        assert not [drift for found in place.warehouse().compare(full=True) for drift in found.drifts]

    run()


def checksums(place: WarehouseLake) -> list[tuple[object, ...]]:
    columns = "table_name, ticker, year, files, row_count, checksum_1, checksum_2"
    source = f"{place.redshift.schema_name}.loaded_years"
    return sorted(place.server.database.cursor().execute(" ".join(("SELECT", columns, "FROM", source))).fetchall())
