"""Landed files that are damaged on the disk: an error that names them, tables as they were, and whole again afterwards."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake.raw_csv import CorruptRawFileError
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import CURATED, PROCESSED, RAW
from stock_lakehouse_tests.faults import Faults
from stock_lakehouse_tests.graph import TICKERS, Bars, clocked, history, layers, rectangle, run, year_boundary
from stock_lakehouse_tests.lake.raw_by_ticker import into_layout_by_ticker

DAYS = year_boundary(4, 3)
ASKED = rectangle(DAYS, TICKERS)
BARS = history(TICKERS, DAYS)
BELOW = (PROCESSED.name, CURATED.name)
Damage = Callable[[bytes, random.Random], bytes]


def overwritten(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(content))
    other = dice.randbytes(dice.randrange(1, 20))
    return content[:at] + bytes(one ^ 0xFF for one in content[at : at + 1]) + other + content[at + 1 + len(other) :]


def flipped(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :]


def cut_at_a_line(content: bytes, dice: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(lines[: dice.randrange(1, len(lines))])


DAMAGES: dict[str, Damage] = {
    "cut anywhere": lambda content, dice: content[: dice.randrange(len(content))],
    "cut at a line's end": cut_at_a_line,
    "emptied": lambda content, dice: b"",
    "overwritten": overwritten,
    "a bit flipped": flipped,
    "header gone": lambda content, dice: content.partition(b"\n")[2],
    "header damaged": lambda content, dice: content.replace(b"symbol", b"sy,bol", 1),
    "a digit changed": lambda content, dice: re.sub(rb"[0-8]", lambda one: bytes([one[0][0] + 1]), content, count=1),
    "doubled": lambda content, dice: content * 2,
    "a line of another file": lambda content, dice: content + b"a,b,c\n",
}


@pytest.fixture
def house(tmp_path: Path, spark: SparkSession) -> LakehouseResource:
    house = clocked(tmp_path / "lake", spark)
    run(house, ASKED, BARS.values(), steps=(RAW.name, *BELOW))
    return house


def landed(house: LakehouseResource) -> list[Path]:
    return [Path(str(house.lake.root), file.path) for file in house.lake.raw.files()]


def damage(house: LakehouseResource, kind: str, count: int, faults: Faults) -> None:
    """Damage `count` files, one after the other; after each, runs that must fail, and one that must heal."""
    before = layers(house)
    dice = random.Random(kind)
    edited: Bars = {key: {**one, "volume": "7"} for key, one in BARS.items()}
    slowest = 0.0
    lost = 0
    for path in dice.choices(landed(house), k=count):
        whole = path.read_bytes()
        path.write_bytes(DAMAGES[kind](whole, dice))
        assert path.read_bytes() != whole
        hurt = time.monotonic()
        with pytest.raises(CorruptRawFileError, match=re.escape(str(path))):
            run(house, ASKED, steps=BELOW)
        with pytest.raises(CorruptRawFileError, match=re.escape(str(path))):
            run(house, ASKED, edited.values(), steps=(RAW.name,))
        assert layers(house) == before, kind
        path.write_bytes(whole)
        run(house, ASKED, BARS.values(), steps=(RAW.name, *BELOW))
        slowest = max(slowest, time.monotonic() - hurt)
        after = layers(house)
        lost += sum(row not in after[name] for name, rows in before.items() for row in rows)
        assert lost or after == before, kind
    faults.tried("damaged raw file", count, lost, slowest)


@pytest.mark.slow
@pytest.mark.slice(3)
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_an_error_that_names_it_and_once_put_back_the_tables_are_whole(
    house: LakehouseResource, kind: str, faults: Faults
) -> None:
    damage(house, kind, 1, faults)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", DAMAGES)
def test_many_damaged_files_are_errors_that_name_them(house: LakehouseResource, kind: str, faults: Faults) -> None:
    damage(house, kind, 30, faults)


@pytest.mark.slow
def test_a_damaged_file_moved_out_of_the_lake_lands_anew_from_the_next_delivery(
    house: LakehouseResource, tmp_path: Path
) -> None:
    before = layers(house)
    path = landed(house)[0]
    path.write_bytes(path.read_bytes()[:-9])
    path.rename(tmp_path / path.name)
    run(house, ASKED, BARS.values(), steps=(RAW.name, *BELOW))
    after = layers(house)
    keys = {name: [(row["ticker"], str(row["date"])) for row in rows] for name, rows in before.items()}
    assert {name: [(row["ticker"], str(row["date"])) for row in rows] for name, rows in after.items()} == keys
    assert [row["close"] for row in after["curated"]] == [row["close"] for row in before["curated"]]
    assert house.lake.raw.damaged() == []


@pytest.mark.slow
def test_files_from_before_there_were_seals_are_read_and_a_ragged_one_is_named(house: LakehouseResource) -> None:
    before = layers(house)
    paths = sorted(into_layout_by_ticker(Path(house.lake.root), sealed=False))
    run(house, ASKED, BARS.values(), steps=(RAW.name, *BELOW))
    assert layers(house) == before
    assert landed(house) == paths, "nothing lands a second time"
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[:-30])
    with pytest.raises(CorruptRawFileError, match=re.escape(str(paths[0]))):
        run(house, ASKED, steps=BELOW)
    assert layers(house) == before
    assert len(house.lake.raw.damaged()) == 1


def test_a_copy_under_another_name_is_damaged_and_in_the_layout_by_ticker_changes_no_table(
    house: LakehouseResource,
) -> None:
    before = layers(house)
    copies = [path.with_name(path.name.replace("_11111111_", "_22222222_")) for path in landed(house)]
    for path, copy in zip(landed(house), copies, strict=True):
        shutil.copy(path, copy)
    with pytest.raises(CorruptRawFileError, match=re.escape(str(copies[0]))):
        run(house, ASKED, BARS.values(), steps=(RAW.name, *BELOW))
    for copy in copies:
        copy.unlink()
    for path in into_layout_by_ticker(Path(house.lake.root)):
        shutil.copy(path, path.with_name(path.name.replace("_11111111_", "_22222222_")))
    run(house, ASKED, BARS.values(), steps=(RAW.name, *BELOW))
    assert layers(house) == before


def test_all_damaged_files_are_listed_by_size_alone_or_in_full(house: LakehouseResource) -> None:
    shorter, other, *_ = paths = landed(house)
    shorter.write_bytes(shorter.read_bytes()[:-1])
    other.write_bytes(flipped(other.read_bytes(), random.Random(1)))
    size = len(shorter.read_bytes())
    assert house.lake.raw.damaged(in_full=False) == [f"{shorter} ({size:,} bytes instead of {size + 1:,})"]
    assert house.lake.raw.damaged()[1:] == [f"{other} (content or name differs from what landed)"]
    assert house.lake.raw.damaged(["DDD"]) == []
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(
        CorruptRawFileError, match=r"0 bytes instead of [0-9,]+\)\. Nothing was published\. Restore each file"
    ):
        house.lake.raw.read(house.session)
