"""A lake in a folder with blanks and umlauts, and the link by which the engine finds its Delta tables."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake.links import engine_path
from stock_lakehouse.lake.storage import StorageError
from stock_lakehouse_tests.graph import TICKERS, clocked, history, layers, ledger, rectangle, run, year_boundary

DAYS = year_boundary(12, 4)
ASKED = rectangle(DAYS, TICKERS)
BARS = history(TICKERS, DAYS)
FOLDER = "John Smith/OneDrive - Jürgen & Söhne (2)"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's folder for temporary files, empty."""
    (folder := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.soak
def test_a_lake_in_a_folder_with_blanks_and_umlauts_is_that_of_any_other_folder(
    spark: SparkSession, tmp_path: Path, temporary: Path
) -> None:
    plain, special = clocked(tmp_path / "plain", spark), clocked(tmp_path / FOLDER / "lake", spark)
    corrected = {**BARS["AAA", DAYS[3]], "close": BARS["AAA", DAYS[3]]["high"]}
    for house in (plain, special):
        run(house, ASKED, BARS.values(), "11111111-run")
        run(house, ASKED, [corrected], "22222222-run")
    assert layers(special) == layers(plain)
    assert len(ledger(special)) == len(ledger(plain)) > 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "plain",
        "John Smith",
        "temporary",
    }  # nor a folder John%20Smith


def test_a_plain_folder_and_a_bucket_need_no_link(temporary: Path) -> None:
    assert engine_path(Path("/srv/lake"), "curated/stocks_daily") == "/srv/lake/curated/stocks_daily"
    assert engine_path("s3://bucket/lake", "curated/stocks_daily") == "s3://bucket/lake/curated/stocks_daily"
    assert not list(temporary.iterdir())


def test_a_link_that_leads_elsewhere_or_a_folder_of_links_that_others_may_write_to_is_refused(
    tmp_path: Path, temporary: Path
) -> None:
    path = engine_path(tmp_path / "a lake", "curated")
    assert Path(path).parent.readlink() == tmp_path / "a lake"
    assert engine_path(tmp_path / "a lake", "curated") == path
    Path(path).parent.unlink()
    Path(path).parent.symlink_to(tmp_path / "another lake")
    with pytest.raises(StorageError, match="should lead to"):
        engine_path(tmp_path / "a lake", "curated")
    (folder,) = temporary.iterdir()
    folder.chmod(0o777)
    with pytest.raises(StorageError, match="others may write to it"):
        engine_path(tmp_path / "a lake", "curated")
