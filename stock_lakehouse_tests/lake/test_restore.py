"""A lake restored from its backup is the lake that was backed up, wherever either is and whenever the copy was killed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import deltalake
import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from stock_lakehouse.cli import app
from stock_lakehouse.instance.home import open_instance
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.lock import one_writer
from stock_lakehouse.lake.restore import BACKED_UP, RestoreError, copy_backup, drop_orphans
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, RAW, RESTATEMENTS
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.graph import clocked, edited, layers, ledger, plain, raw_contents, rectangle, run
from stock_lakehouse_tests.lake.test_concurrent_writers import ALL, BARS, DAYS, EDITED
from stock_lakehouse_tests.streams.house import StreamHouse

DERIVED = [PROCESSED.name, CURATED.name, FEATURES.name]


@dataclass
class Lost:
    """A lake with a history of changes, and what it held."""

    root: Path
    layers: dict[str, list[dict[str, Any]]]
    ledger: list[dict[str, Any]]
    raw: list[dict[str, Any]]


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Lost:
    root = tmp_path_factory.mktemp("lost") / "lake"
    house = clocked(root, spark)
    # Three deliveries: the first 20 days; all days, of which one was edited; another edit and a bar that is refused.
    run(house, rectangle(DAYS[:20], ALL.tickers), (BARS[key] for key in BARS if key[1] in DAYS[:20]), "11111111-run")
    run(house, ALL, EDITED.values(), "22222222-run")
    last = edited(edited(EDITED, ("CCC", DAYS[3]), close=EDITED["CCC", DAYS[3]]["open"]), ("BBB", DAYS[50]), high="-1")
    run(house, ALL, last.values(), "33333333-run")
    house.lake.delta[RESTATEMENTS.name].open().create_checkpoint()  # as upkeep does
    found = Lost(root, layers(house), ledger(house), raw_contents(house.lake))
    assert len({line["run_id"] for line in found.ledger}) == 2
    assert found.layers["quarantine"]
    return found


def quiet(line: str) -> None:
    pass


@pytest.fixture
def backup(lost: Lost, tmp_path: Path) -> Path:
    """What a backup holds: raw and the ledger alone."""
    folder = tmp_path / "backup"
    for table in (RAW, RESTATEMENTS):
        shutil.copytree(lost.root / table.path, folder / table.path)
    return folder


def restored(backup: Path | str, root: Path | str, spark: SparkSession) -> Any:
    """A lake at `root` from `backup`, with the layers after raw computed by one run."""
    house = clocked(root, spark)
    copy_backup(Lake(backup), house.lake, quiet)
    run(house, ALL, run_id="99999999-run", steps=DERIVED)
    return house


def is_lake_of(house: Any, lost: Lost) -> None:
    assert raw_contents(house.lake) == lost.raw
    assert layers(house) == lost.layers
    assert ledger(house) == lost.ledger


@pytest.mark.soak
def test_a_restored_lake_has_equal_tables_bit_for_bit(
    lost: Lost, backup: Path, tmp_path: Path, spark: SparkSession
) -> None:
    house = restored(backup, tmp_path / "lake", spark)
    is_lake_of(house, lost)
    # As of the time before the second change, the ledger has the lines of the first alone: its history was copied too.
    log = deltalake.DeltaTable(str(tmp_path / "lake" / RESTATEMENTS.path))
    assert log.version() == deltalake.DeltaTable(str(lost.root / RESTATEMENTS.path)).version()


@pytest.mark.soak
def test_a_lake_in_a_bucket_is_restored_from_a_backup_in_a_bucket(
    lost: Lost, s3_root: str, spark: SparkSession
) -> None:
    s3.upload(lost.root, f"{s3_root}-backup")
    is_lake_of(restored(f"{s3_root}-backup", s3_root, spark), lost)


class KilledError(Exception):
    pass


def killed_at(number: int, monkeypatch: pytest.MonkeyPatch, lake: Lake) -> None:
    """The copy is killed before its file `number`, from 0."""
    create, made = lake.storage.create, iter(range(1_000_000))

    def counted(path: str, content: bytes) -> None:
        if next(made) >= number:
            raise KilledError
        create(path, content)

    monkeypatch.setattr(lake.storage, "create", counted)


def test_a_copy_that_was_killed_anywhere_continues(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {str(path.relative_to(backup)): path.read_bytes() for path in backup.rglob("*") if path.is_file()}
    kept = {path: content for path, content in wanted.items() if not path.endswith(("_last_checkpoint", ".crc"))}
    for number in range(len(kept)):
        root = tmp_path / str(number)
        lake = Lake(root)
        with monkeypatch.context() as patch:
            killed_at(number, patch, lake)
            with pytest.raises(KilledError):
                copy_backup(Lake(backup), lake, quiet)
        if lake.delta[RESTATEMENTS.name].exists():
            assert lake.delta[RESTATEMENTS.name].damages() == []  # an earlier version of the ledger, and whole
        copied = {table.table: table for table in copy_backup(Lake(backup), lake, quiet)}
        written = sum(table.written for table in copied.values())
        assert 0 < written <= len(kept)
        found = {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file() and ".locks" not in path.parts
        }
        assert found == kept
        assert [table.written for table in copy_backup(Lake(backup), lake, quiet)] == [0] * len(BACKED_UP)
        shutil.rmtree(root)


def test_a_ledger_is_copied_whose_old_log_was_removed(lost: Lost, backup: Path, tmp_path: Path) -> None:
    log = backup / RESTATEMENTS.path / "_delta_log"
    for path in log.glob("*.json"):
        if int(path.stem) < deltalake.DeltaTable(str(log.parent)).version():
            path.unlink()
    assert len(list(log.glob("*.json"))) == 1
    copy_backup(Lake(backup), Lake(tmp_path / "lake"), quiet)
    found = deltalake.DeltaTable(str(tmp_path / "lake" / RESTATEMENTS.path)).to_pyarrow_table()
    assert found.num_rows == len(lost.ledger)


def test_a_damaged_landed_file_of_the_backup_is_named_and_not_copied(backup: Path, tmp_path: Path) -> None:
    damaged, *others = sorted((backup / RAW.path).rglob("*.csv"))
    content = damaged.read_bytes()
    damaged.write_bytes(content.replace(b"1", b"2", 1))
    with pytest.raises(RestoreError, match=f"{damaged.name}: content or name differs"):
        copy_backup(Lake(backup), Lake(tmp_path / "lake"), quiet)
    landed = {path.name for path in (tmp_path / "lake" / RAW.path).rglob("*.csv")}
    assert landed == {path.name for path in others}
    damaged.write_bytes(content)
    raw, *_ = copy_backup(Lake(backup), Lake(tmp_path / "lake"), quiet)
    assert raw.written == 1


def test_only_an_empty_lake_is_restored(lost: Lost, backup: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="there is no landed file in"):
        copy_backup(Lake(tmp_path / "nothing"), Lake(tmp_path / "lake"), quiet)
    # Another landed file.
    other = tmp_path / "other"
    shutil.copytree(lost.root, other)
    first = min((backup / RAW.path).rglob("*.csv"))
    first.unlink()
    with pytest.raises(
        RestoreError, match=f"landed files that the backup does not have, like {RAW.path}/.*{first.name}"
    ):
        copy_backup(Lake(backup), Lake(other), quiet)
    # Tables that were computed from fewer rows.
    (other / first.relative_to(backup)).unlink()
    second = min((other / RAW.path).rglob("*.csv"))
    second.unlink()
    with pytest.raises(RestoreError, match="has tables already that were not computed from this backup"):
        copy_backup(Lake(backup), Lake(other), quiet)
    assert not second.exists()
    # A ledger of its own.
    shutil.rmtree(other)
    log = other / RESTATEMENTS.path / "_delta_log" / f"{0:020}.json"
    log.parent.mkdir(parents=True)
    log.write_text("{}")
    with pytest.raises(RestoreError, match="exists and differs from the backup"):
        copy_backup(Lake(backup), Lake(other), quiet)
    assert log.read_text() == "{}"


def test_lines_of_a_commit_that_never_came_are_dropped_where_the_backup_can_tell(
    lost: Lost, tmp_path: Path, spark: SparkSession
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(lost.root, whole)
    lake = Lake(whole)
    curated = lake.curated.open()
    with one_writer(whole, RESTATEMENTS.name):
        opened = lake.delta[RESTATEMENTS.name].open()
        line = opened.to_pyarrow_table().slice(0, 1).to_pylist()[0]
        line |= {"table_name": CURATED.name, "table_id": str(curated.metadata().id), "from_version": curated.version()}
        deltalake.write_deltalake(opened, _as_table(opened, line | {"run_id": "killed"}), mode="append")
    house = clocked(tmp_path / "lake", spark)
    copy_backup(Lake(whole), house.lake, quiet)
    assert "killed" in {line["run_id"] for line in ledger(house)}
    drop_orphans(Lake(whole), house.lake)
    drop_orphans(Lake(whole), house.lake)
    assert ledger(house) == lost.ledger


@pytest.mark.slow
def test_a_streams_messages_are_restored_and_its_bars_made_again(
    lost: Lost, tmp_path: Path, spark: SparkSession
) -> None:
    shutil.copytree(lost.root, tmp_path / "whole")
    before = StreamHouse.made(tmp_path, spark, tmp_path / "whole")
    count = before.walk(("AAPL", "NVDA"), 60)
    assert before.drain().messages == count
    backup = tmp_path / "backup"
    for table in BACKED_UP:
        if (tmp_path / "whole" / table.path).exists():
            shutil.copytree(tmp_path / "whole" / table.path, backup / table.path)
    copy_backup(Lake(backup), Lake(tmp_path / "lake"), quiet)
    after = StreamHouse.made(tmp_path, spark, tmp_path / "lake")
    assert after.drain().messages == 0  # the positions were restored too
    for name in ("raw_ticks", "minute_bars"):
        assert plain(after.table(name)) == plain(before.table(name)) != []


def _as_table(opened: deltalake.DeltaTable, row: dict[str, Any]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist([row], schema=opened.to_pyarrow_dataset().schema)


CONFIG = """
tickers = ["AAPL", "NVDA"]
first_date = 2023-08-01
last_date = 2023-09-21
source = "csv"
csv_folder = "prices"
"""
HEADER = "date,symbol,open,high,low,close,volume\n"


def prices(folder: Path, close: float) -> None:
    """A file of both tickers on four days; on the second day AAPL has the close `close`."""
    folder.mkdir(exist_ok=True)
    days = ("2023-08-01", "2023-08-02", "2023-08-03", "2023-08-04")
    rows = [
        f"{day},{ticker},10,20,5,{close if (day, ticker) == (days[1], 'AAPL') else 11 + at},1000"
        for at, day in enumerate(days)
        for ticker in ("AAPL", "NVDA")
    ]
    (folder / "bars.csv").write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture
def drilled(tmp_path: Path) -> Path:
    """A folder whose lake had a restatement, and was moved away to lost/."""
    (tmp_path / "lakehouse.toml").write_text(CONFIG)
    for close in (12.0, 13.5):
        prices(tmp_path / "prices", close)
        done = CliRunner().invoke(app, ["materialize", "--to", "2023-08-04"])
        assert done.exit_code == 0, done.output
    shutil.move(tmp_path / "lakehouse", tmp_path / "lost")
    return tmp_path


def everything(root: Path) -> dict[str, list[dict[str, Any]]]:
    from stock_lakehouse.lake.reading import read_table

    names = ("raw_stocks_daily", "processed_stocks_daily", "processed_quarantine", "curated_stocks_daily",
             "corporate_actions", "stocks_features", "restatements")  # fmt: skip
    return {name: plain(read_table(name, lake_root=root)) for name in names}


@pytest.mark.slow
def test_the_program_restores_a_lake_without_asking_the_source_and_records_it(drilled: Path) -> None:
    prices(drilled / "prices", 17.0)  # what the source delivers by now
    done = CliRunner().invoke(app, ["restore", "lost"])
    assert "bars to do" in done.output, done.output
    assert "has no ledger" not in done.output
    assert done.exit_code == 0, done.output
    before, after = everything(drilled / "lost"), everything(drilled / "lakehouse")
    assert after == before
    [line] = [line for line in after["restatements"] if line["columns"] == "close"]
    assert (line["old"], line["new"]) == ("12.0", "13.5")
    with open_instance(drilled / "lakehouse" / ".dagster") as instance:
        for name in (RAW.name, PROCESSED.name, CURATED.name, FEATURES.name):
            assert len(instance.get_materialized_partitions(dg.AssetKey(name))) == 8
    again = CliRunner().invoke(app, ["restore", "lost"])
    assert "there already" in again.output
    assert everything(drilled / "lakehouse") == before


def test_the_program_refuses_what_is_no_backup(tmp_path: Path) -> None:
    for backup, message in (
        ("gs://bucket/lake", "neither a folder nor s3://bucket/prefix"),
        ("lakehouse", "is the lake itself"),
        ("empty", "there is no landed file in"),
    ):
        refused = CliRunner().invoke(app, ["restore", backup])
        assert refused.exit_code == 2, refused.output
        assert message in " ".join(refused.output.split())
    assert not (tmp_path / "lakehouse" / "raw").exists()
