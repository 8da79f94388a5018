"""lakehouse.toml and variables: what they may hold, which of them wins, and what an error says."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import get_args

import pytest
from pydantic import Field, SecretStr

from stock_lakehouse.engines import REMOTE_VARIABLE
from stock_lakehouse.instance.home import LAKEHOUSE_TOML
from stock_lakehouse.lake_options import TICKER
from stock_lakehouse.settings import PREFIX, Group, Settings, SettingsError, fields_of, load_settings, variable_of
from stock_lakehouse_tests import settings_tables

TOKEN = "sc://host:443/;use_ssl=true;token=dapi0123456789"


def written(folder: Path, text: str) -> Path:
    file = folder / "lakehouse.toml"
    file.write_text(text, encoding="utf-8")
    return file


def message_of(**overrides: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(**overrides)
    return str(caught.value)


def test_without_file_and_variables_the_sample_lands_in_the_working_directory(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.source == "sample"
    assert settings.engine == "embedded"
    assert settings.tickers == ("AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA")
    assert settings.lake_root == tmp_path / "lakehouse"


def test_the_file_is_read(tmp_path: Path) -> None:
    written(tmp_path, 'tickers = ["BRK-B", "GC=F"]\nfirst_date = 2020-01-02\npartition_by = "session"\n')
    settings = load_settings()
    assert settings.tickers == ("BRK-B", "GC=F")
    assert settings.first_date == date(2020, 1, 2)
    assert settings.partition_by == "session"


def test_variables_beat_the_file_and_arguments_beat_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, 'tickers = ["AAPL"]\nfirst_date = 2020-01-02\njump_deviations = 10.0\n')
    monkeypatch.setenv(f"{PREFIX}TICKERS", "NVDA, META,")
    monkeypatch.setenv(f"{PREFIX}FIRST_DATE", "2021-01-04")
    settings = load_settings(first_date=date(2022, 1, 3))
    assert settings.tickers == ("NVDA", "META")
    assert settings.first_date == date(2022, 1, 3)
    assert settings.jump_deviations == 10.0


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file = written(elsewhere, 'lake_root = "lake"\nsource = "csv"\ncsv_folder = "../prices"\n')
    monkeypatch.setenv(f"{PREFIX}CONFIG", str(file))
    settings = load_settings()
    assert settings.lake_root == elsewhere / "lake"
    assert settings.csv_folder == elsewhere / "../prices"
    monkeypatch.setenv(f"{PREFIX}LAKE_ROOT", str(tmp_path / "absolute"))
    assert load_settings().lake_root == tmp_path / "absolute"


def test_a_lake_in_a_bucket_is_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("s3://a-bucket/some/prefix", "s3://a-bucket/some/prefix/", "s3://a-bucket"):
        monkeypatch.setenv(f"{PREFIX}LAKE_ROOT", given)
        assert load_settings().lake_root == given.rstrip("/")


@pytest.mark.parametrize(
    "root", ["s3://", "s3:///prefix", "s3://B/x", "s3://bucket//x", "s3://bucket/a b", "gs://bucket/x", "file:///lake"]
)
def test_a_root_that_is_neither_folder_nor_bucket_is_refused(monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    monkeypatch.setenv(f"{PREFIX}LAKE_ROOT", root)
    with pytest.raises(SettingsError, match="cannot be the root of a lake; allowed: a folder, or s3://bucket/prefix"):
        load_settings()


def test_a_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load_settings(lake_root=Path("~/lake")).lake_root == tmp_path / "home" / "lake"


def test_settings_cannot_be_changed_after_they_were_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().source = "csv"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SOURCE", "yahoo", "source: Input should be 'sample', 'csv' or 'yfinance'"),
        ("ENGINE", "jvm", "engine: Input should be 'embedded', 'spark_connect' or 'databricks'"),
        ("PARTITION_BY", "ticker", "partition_by: Input should be 'date_ticker' or 'session'"),
        ("FIRST_DATE", "2013-02-30", "first_date: "),
        ("LAST_DATE", "2012-12-31", "last_date: 2012-12-31 is before first_date 2013-01-02"),
        ("TICKERS", "AAPL,aapl", "tickers: a ticker is listed twice"),
        ("TICKERS", "../x", "tickers: '../X' is not a ticker; allowed: ^\\^?[A-Z0-9]"),
        ("TICKERS", "AAPL,AAPL", "tickers: a ticker is listed twice"),
        ("TICKERS", " , ", "tickers: at least one ticker is needed, like AAPL,NVDA"),
        ("TICKERS_PER_BATCH", "0", "tickers_per_batch: Input should be greater than or equal to 1"),
        ("BARS_PER_CHUNK", "many", "bars_per_chunk: Input should be a valid integer"),
        ("REQUESTS_PER_SECOND", "0", "requests_per_second: Input should be greater than 0"),
        ("REQUEST_ATTEMPTS", "0", "request_attempts: Input should be greater than or equal to 1"),
        ("CLOSE_GRACE_MINUTES", "-1", "close_grace_minutes: Input should be greater than or equal to 0"),
        ("PRICE_TOLERANCE", "1", "price_tolerance: Input should be less than 1"),
        ("JUMP_DEVIATIONS", "-1", "jump_deviations: Input should be greater than 0"),
        ("SOURCE", "csv", "csv_folder: needed with source = 'csv', a folder of CSV files"),
        (
            "ENGINE",
            "spark_connect",
            "spark_remote: needed with engine = 'spark_connect'; set the variable STOCK_LAKEHOUSE_SPARK_",
        ),
    ],
)
def test_a_wrong_value_names_the_field_and_what_it_may_hold(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    assert said in message_of()


def test_every_wrong_field_is_named_at_once(tmp_path: Path) -> None:
    written(tmp_path, 'source = "yahoo"\nengine = "jvm"\ntickers = 5\n')
    message = message_of()
    assert all(f"{field}: " in message for field in ("source", "engine", "tickers"))


def test_an_unknown_name_in_the_file_is_an_error_that_lists_the_names(tmp_path: Path) -> None:
    written(tmp_path, 'ticker = ["AAPL"]\n')
    message = message_of()
    assert message.startswith(
        "ticker: no such setting; did you mean tickers? allowed: adj_close_tolerance, automation, "
    )
    assert set(message.split("allowed: ")[1].split(", ")) == set(Settings.model_fields)


def test_an_unknown_variable_is_an_error_that_lists_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}TICKER", "AAPL")
    message = message_of()
    assert message.startswith(
        "STOCK_LAKEHOUSE_TICKER: no such setting; did you mean STOCK_LAKEHOUSE_TICKERS? allowed: "
    )
    assert "STOCK_LAKEHOUSE_TICKERS" in message
    assert "STOCK_LAKEHOUSE_CONFIG" in message


def test_an_unknown_argument_is_an_error() -> None:
    assert message_of(colour="red").startswith("colour: no such setting")


def test_a_file_that_the_variable_names_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}CONFIG", str(tmp_path / "nowhere.toml"))
    assert message_of() == f"STOCK_LAKEHOUSE_CONFIG: there is no file {tmp_path / 'nowhere.toml'}"


@pytest.mark.parametrize("content", [b"tickers = [", b"tickers = 'AAPL\n", b"# caf\xe9\n"])
def test_a_file_that_is_no_toml_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lakehouse.toml").write_bytes(content)
    assert message_of().startswith(f"{tmp_path / 'lakehouse.toml'}: ")


@pytest.mark.parametrize("key", ["spark_remote", '"spark_remote"', "'spark_remote'", "  spark_remote  "])
def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path, key: str) -> None:
    written(tmp_path, f'engine = "spark_connect"\n{key} = "{TOKEN}"\n')
    message = message_of()
    assert message == "spark_remote: may hold a secret, so it is not read from a file; set STOCK_LAKEHOUSE_SPARK_REMOTE"


def test_a_secrets_name_in_a_comment_or_a_value_is_no_secret(tmp_path: Path) -> None:
    written(tmp_path, '# spark_remote = "x"\ncsv_folder = """\nspark_remote = 1"""\n')
    assert load_settings().spark_remote is None


def test_a_secret_comes_from_its_variable_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}SPARK_REMOTE", TOKEN)
    monkeypatch.setenv(f"{PREFIX}ENGINE", "spark_connect")
    settings = load_settings()
    assert settings.spark_remote is not None
    assert settings.spark_remote.get_secret_value() == TOKEN
    assert "dapi" not in repr(settings) + str(settings) + settings.model_dump_json()
    monkeypatch.setenv(f"{PREFIX}SOURCE", "nowhere")
    monkeypatch.setenv(f"{PREFIX}LAST_DATE", "1999-01-01")
    assert "dapi" not in message_of()


@pytest.mark.parametrize(
    "ticker", ["A", "BRK-B", "BRK.B", "MKC.V", "GC=F", "RDS.A", "A^B", "^GSPC", "^TNX", "BAC-PL", "A23456789012345"]
)
def test_tickers_and_indices_of_new_york_are_allowed(ticker: str) -> None:
    assert load_settings(tickers=(ticker,)).tickers == (ticker,)


@pytest.mark.parametrize(
    ("ticker", "exchange", "reason"),
    [
        ("VOD.L", "XLON", "listed in London (XLON)"),
        ("BT-A.L", "XLON", "listed in London (XLON)"),
        ("7203.T", "XTKS", "listed in Tokyo (XTKS)"),
        ("0700.HK", "XHKG", "listed in Hong Kong (XHKG)"),
        ("SAP.DE", "XETR", "listed in Frankfurt, Xetra (XETR)"),
        ("MC.PA", "XPAR", "listed in Paris (XPAR)"),
        ("SHOP.TO", "XTSE", "listed in Toronto (XTSE)"),
        ("RELIANCE.NS", "XNSE", "listed in Mumbai, NSE (XNSE)"),
        ("300750.SZ", "XSHG", "listed in Shenzhen (XSHG)"),
        ("BTC-USD", "24/7", "a pair of cryptocurrencies (24/7)"),
        ("EURUSD=X", "24/5", "a currency (24/5)"),
    ],
)
def test_a_ticker_of_another_exchange_is_refused_with_the_exchange_to_set(
    ticker: str, exchange: str, reason: str
) -> None:
    assert load_settings(tickers=(ticker, "ABC"), exchange=exchange).exchange == exchange
    end = f'set exchange = "{exchange}", or remove it'
    assert message_of(tickers=("AAPL", ticker)) == f"tickers: {ticker} is {reason}, and exchange is XNYS: {end}"
    assert end in message_of(tickers=(ticker,), exchange="XWAR")


def test_one_calendar_serves_both_exchanges_of_a_place() -> None:
    assert load_settings(tickers=("SAP.DE",), exchange="XFRA").tickers == ("SAP.DE",)
    assert load_settings(tickers=("RELIANCE.NS",), exchange="XBOM").tickers == ("RELIANCE.NS",)


def test_a_v_is_a_class_of_shares_but_not_where_yahoo_writes_the_ticker() -> None:
    assert load_settings(tickers=("MKC.V",)).tickers == ("MKC.V",)
    assert "is listed in Toronto, TSX Venture (XTSE)" in message_of(tickers=("MKC.V",), source="yfinance")
    assert "is listed in Toronto, TSX Venture (XTSE)" in message_of(tickers=("MKC.V",), exchange="XLON")


def test_every_ticker_of_another_exchange_is_named() -> None:
    message = message_of(tickers=("VOD.L", "SAP.DE", "AAPL"))
    assert "VOD.L is listed in London" in message
    assert "SAP.DE is listed in Frankfurt" in message


@pytest.mark.parametrize("name", ["XXXX", "xlon", "", "New York"])
def test_an_unknown_exchange_is_refused_with_some_that_are_known(name: str) -> None:
    assert message_of(exchange=name) == (
        f"exchange: {name!r} is not an exchange that the calendars know; allowed: MICs, 24/7 and 24/5, like XNYS, XLON, XETR, "
        "XPAR, XTSE, XTKS, XHKG, XASX, XNSE, 24/7, 24/5"
    )


def test_another_name_of_an_exchange_is_its_mic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}EXCHANGE", "XNAS")
    assert load_settings().exchange == "XNYS"
    assert load_settings(exchange="LSE", tickers=("VOD.L",)).exchange == "XLON"


@pytest.mark.parametrize(
    ("exchange", "first", "known"),
    [("XTKS", date(1996, 12, 30), "1997-01-01"), ("XNYS", date(1884, 12, 31), "1885-01-01")],
)
def test_a_first_date_before_the_calendars_is_refused(exchange: str, first: date, known: str) -> None:
    assert message_of(exchange=exchange, first_date=first) == (
        f"first_date: the sessions of {exchange} are known from {known} on; set first_date to that day or later"
    )
    assert load_settings(exchange=exchange, first_date=date.fromisoformat(known)).exchange == exchange


@pytest.mark.parametrize(
    "ticker", ["", "^", "^^A", ".", "..", "ß", "A B", "A/B", "A\\B", "A\n", "A|B", "A,B", "É", "A234567890123456"]
)
def test_what_could_not_be_a_folder_or_a_key_is_no_ticker(ticker: str) -> None:
    assert TICKER.fullmatch(ticker) is None
    assert "is not a ticker" in message_of(tickers=(ticker,))


def test_a_ticker_is_understood_in_any_case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written(tmp_path, 'tickers = ["nvda", "brk-b"]\n')
    assert load_settings().tickers == ("NVDA", "BRK-B")
    monkeypatch.setenv(f"{PREFIX}TICKERS", "aapl, Msft")
    assert load_settings().tickers == ("AAPL", "MSFT")


def test_the_shipped_file_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = Path(__file__).parent.parent / "lakehouse.toml"
    monkeypatch.setenv(f"{PREFIX}CONFIG", str(shipped))
    settings = load_settings()
    assert settings.last_date == date(2023, 9, 21)
    assert settings.lake_root == shipped.parent / "lakehouse"


def test_the_shipped_file_has_the_defaults_and_lists_every_allowed_value() -> None:
    given = tomllib.loads(LAKEHOUSE_TOML)
    assert given.pop("last_date") == date(2023, 9, 21)  # of the sample; without it the lake has no end
    defaults = dict(Settings())
    assert {name: str(defaults[name]) for name in given if name != "tickers"} == {
        name: str(value) for name, value in given.items() if name != "tickers"
    }
    assert list(defaults["tickers"]) == given["tickers"]
    listed = {}
    for line in LAKEHOUSE_TOML.splitlines():
        name, comment = line.partition(" = ")[0], line.partition("#")[2]
        if name in given and name != "exchange" and " | " in comment:
            listed[name] = [part.split()[0].rstrip(":") for part in comment.split(" | ")]
    fields = Settings.model_fields
    assert listed == {
        name: list(get_args(fields[name].annotation)) for name in ("source", "engine", "partition_by", "automation")
    }


DATABRICKS = 'engine = "databricks"\n[databricks]\n'


def test_databricks_is_a_table_of_the_file_and_variables_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(
        tmp_path, DATABRICKS + 'host = "https://adb-1.azuredatabricks.net"\ncluster_id = "0-0-a"\nstart_minutes = 5\n'
    )
    monkeypatch.setenv(f"{PREFIX}DATABRICKS_CLUSTER_ID", "0-0-b")
    monkeypatch.setenv(f"{PREFIX}DATABRICKS_JOB_CLUSTER", '{"num_workers": 2}')
    chosen = load_settings().databricks
    assert (chosen.host, chosen.cluster_id, chosen.start_minutes) == ("https://adb-1.azuredatabricks.net", "0-0-b", 5)
    assert chosen.job_cluster == {"num_workers": 2}
    assert chosen.job_compute == "a new cluster"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "databricks: with engine = 'databricks' set databricks.cluster_id, or databricks.serverless = true"),
        ('cluster_id = "a"\nserverless = true\n', "databricks: cluster_id, serverless: set one of them"),
        ('serverless = true\nhost = "adb-1.net"\n', "databricks.host: String should match pattern"),
        ('serverless = true\nwork = "jobs"\n', "databricks.work: Input should be 'auto', 'session' or 'job'"),
        ('serverless = true\nwork = "job"\n', "messages: needed with work = 'job'"),
        ('serverless = true\nmessages = "/Volumes/a/b/c"\n', "wheel: needed for jobs on a new cluster or serverless"),
        ('serverless = true\nmessages = "s3://bucket/prefix"\n', "databricks.messages: String should match pattern"),
        ('serverless = true\nwork = "session"\njob_cluster = {num_workers = 1}\n', "job_cluster: not used with work"),
        (
            'cluster = "a"\n',
            "databricks.cluster: no such setting; allowed: cluster_id, host, job_bars",
        ),
    ],
)
def test_a_wrong_databricks_setting_is_named(tmp_path: Path, table: str, said: str) -> None:
    written(tmp_path, DATABRICKS + table)
    assert said in message_of()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('catalog = "glue"\n', "catalog: 'glue' needs a lake on S3, because AWS cannot read"),
        ('catalog = "hive"\n', "catalog: Input should be 'local' or 'glue'"),
        ('[aws]\ncatalog_by = "crawl"\n', "crawler_role: needed with catalog_by = 'crawl'"),
        ("[aws]\nathena_scan_limit_mb = 9\n", "aws.athena_scan_limit_mb: Input should be greater than or equal to 10"),
        ('[aws]\nathena_results = "results"\n', "aws.athena_results: String should match pattern"),
        ('[aws]\nglue_database = "my-lake"\n', "aws.glue_database: String should match pattern"),
        ('[aws]\nsecret_access_key = "a"\n', "credentials and region come from boto3's variables and profiles"),
    ],
)
def test_a_wrong_setting_of_the_catalog_is_named(tmp_path: Path, text: str, said: str) -> None:
    written(tmp_path, text)
    assert said in message_of()


def test_a_lake_on_s3_can_be_registered_in_glue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = 'catalog = "glue"\nlake_root = "s3://bucket/lake"\n'
    written(tmp_path, lake + '[aws]\nglue_database = "prices"\ncatalog_by = "crawl"\ncrawler_role = "crawlers"\n')
    monkeypatch.setenv(f"{PREFIX}AWS_GLUE_DATABASE", "bars")
    settings = load_settings()
    assert settings.catalog == "glue"
    assert (settings.aws.glue_database, settings.aws.catalog_by, settings.aws.crawler_role) == (
        "bars",
        "crawl",
        "crawlers",
    )


NO_PROFILE = "no instance profile, so"


@pytest.mark.parametrize(
    ("lake", "table", "said"),
    [
        (
            "s3://bucket/lake",
            "serverless = true\n",
            f"databricks.serverless: serverless compute has {NO_PROFILE} it cannot reach s3://bucket/lake; "
            "set databricks.cluster_id to a cluster",
        ),
        # Jobs on a cluster would reach it; the small reads beside them go by session.
        (
            "s3://bucket/lake",
            'serverless = true\nwheel = "w"\nmessages = "/Volumes/a/b/c"\njob_cluster = {num_workers = 1}\n',
            "databricks.serverless: serverless compute has",
        ),
        (
            "/Volumes/a/b/lake",
            'serverless = true\nwheel = "w"\nmessages = "s3://bucket"\n',
            f"databricks.messages: serverless jobs have {NO_PROFILE} they cannot reach s3://bucket; "
            "set databricks.messages to a folder of a volume",
        ),
    ],
)
def test_what_serverless_compute_cannot_reach_is_refused_with_what_to_set(
    tmp_path: Path, lake: str, table: str, said: str
) -> None:
    written(tmp_path, f'lake_root = "{lake}"\n{DATABRICKS}{table}')
    assert said in message_of()


@pytest.mark.parametrize(
    ("lake", "table"),
    [
        ("s3://bucket/lake", 'cluster_id = "a"\nmessages = "s3://bucket"\n'),
        ("/Volumes/a/b/lake", 'serverless = true\nwheel = "w"\nmessages = "/Volumes/a/b/c"\n'),
        ("/Volumes/a/b/lake", 'serverless = true\nwork = "session"\nwheel = "w"\nmessages = "s3://bucket"\n'),
    ],
)
def test_a_lake_that_databricks_reaches_is_taken(tmp_path: Path, lake: str, table: str) -> None:
    written(tmp_path, f'lake_root = "{lake}"\n{DATABRICKS}{table}')
    assert str(load_settings().lake_root) == lake


@pytest.mark.parametrize("name", ["token", "client_secret"])
def test_a_credential_in_the_file_is_refused_with_the_variable_and_not_repeated(tmp_path: Path, name: str) -> None:
    written(tmp_path, f'{DATABRICKS}serverless = true\n{name} = "dapi0123"\n')
    message = message_of()
    assert f"databricks.{name}: no such setting" in message
    assert "DATABRICKS_TOKEN" in message
    assert "dapi0123" not in message


def test_an_unknown_databricks_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}DATABRICKS_TOKEN", "dapi0123")
    message = message_of()
    assert message.startswith("STOCK_LAKEHOUSE_DATABRICKS_TOKEN: no such setting; allowed: ")
    assert "STOCK_LAKEHOUSE_DATABRICKS_CLUSTER_ID" in message


@pytest.mark.parametrize("folder", ["50%", "lake[1]", "lake#1"])
def test_a_folder_in_which_tables_would_not_be_found_again_is_refused(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("STOCK_LAKEHOUSE_LAKE_ROOT", folder)
    with pytest.raises(
        SettingsError, match=r"^lake_root: the path .* has a character that the path of a table cannot have"
    ):
        load_settings()


class Archive(Group):
    """A group that the product does not have."""

    credentials = "the password comes from ARCHIVE_PASSWORD"

    file: Path | None = Field(None, description="database file")
    threads: int = Field(2, ge=1, description="threads of a query")
    layouts: dict[str, str] = Field(default_factory=dict, description="layout of each table")
    schemas: tuple[str, ...] = Field(("main",), description="schemas that are created")
    token: SecretStr | None = Field(None, description="token of the server")
    passwords: dict[str, SecretStr] = Field(default_factory=dict, description="password of each user")
    port_file: Path | None = Field(
        None, description="where the port is written", json_schema_extra={"variable_only": "changes with each start"}
    )


class WithArchive(Settings):
    archive: Archive = Archive()


def refused() -> str:
    with pytest.raises(SettingsError) as caught:
        WithArchive.load()
    return str(caught.value)


def test_a_new_group_is_a_table_of_the_file_with_variables_of_its_own_and_paths_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    file = written(folder, 'tickers = ["A"]\n[archive]\nfile = "w.duckdb"\nthreads = 3\nschemas = ["a", "b"]\n')
    monkeypatch.setenv("STOCK_LAKEHOUSE_CONFIG", str(file))
    monkeypatch.setenv("STOCK_LAKEHOUSE_ARCHIVE_THREADS", "5")
    monkeypatch.setenv("STOCK_LAKEHOUSE_ARCHIVE_LAYOUTS", '{"bars": "wide"}')
    monkeypatch.setenv("STOCK_LAKEHOUSE_ARCHIVE_PORT_FILE", "port")
    archive = WithArchive.load().archive
    assert archive.file == folder / "w.duckdb"
    assert (archive.threads, archive.schemas, archive.layouts) == (5, ("a", "b"), {"bars": "wide"})
    assert archive.port_file == tmp_path / "port"
    monkeypatch.setenv("STOCK_LAKEHOUSE_ARCHIVE_SCHEMAS", '["c"]')
    assert WithArchive.load().archive.schemas == ("c",)
    with pytest.raises(ValueError, match="frozen"):
        archive.threads = 1  # type: ignore[misc]


def test_an_unknown_name_of_a_new_group_is_an_error_that_lists_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "[archive]\nthread = 3\n")
    assert refused() == (
        "archive.thread: no such setting; did you mean threads? allowed: file, layouts, passwords, port_file, schemas, "
        "threads, token; the password comes from ARCHIVE_PASSWORD"
    )
    monkeypatch.setenv("STOCK_LAKEHOUSE_ARCHIVE_THREAD", "3")
    message = refused()
    assert message.startswith(
        "STOCK_LAKEHOUSE_ARCHIVE_THREAD: no such setting; did you mean STOCK_LAKEHOUSE_ARCHIVE_THREADS? "
    )
    assert "STOCK_LAKEHOUSE_ARCHIVE_THREADS" in message
    monkeypatch.delenv("STOCK_LAKEHOUSE_ARCHIVE_THREAD")
    assert "archive: no such setting" in message_of()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("threads = 0\n", "archive.threads: Input should be greater than or equal to 1"),
        (
            'token = "s3cret"\n',
            "archive.token: may hold a secret, so it is not read from a file; set STOCK_LAKEHOUSE_",
        ),
        (
            'passwords = {a = "s3cret"}\n',
            "archive.passwords: may hold a secret, so it is not read from a file; set STOCK_",
        ),
        (
            'port_file = "port"\n',
            "archive.port_file: changes with each start, so it is not read from a file; set STOCK_",
        ),
    ],
)
def test_a_wrong_or_secret_value_of_a_new_group_is_refused_by_its_name(tmp_path: Path, text: str, said: str) -> None:
    written(tmp_path, f"[archive]\n{text}")
    message = refused()
    assert message.startswith(said)
    assert "s3cret" not in message


def test_a_group_that_is_written_as_a_plain_value_is_an_error(tmp_path: Path) -> None:
    written(tmp_path, 'archive = "w.duckdb"\n')
    assert refused().startswith("archive: Input should be a valid dictionary")


def test_secrets_of_every_group_are_known_so_that_no_message_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}SPARK_REMOTE", TOKEN)
    monkeypatch.setenv(f"{PREFIX}ARCHIVE_TOKEN", "s3cret")
    monkeypatch.setenv(f"{PREFIX}ARCHIVE_PASSWORDS", '{"a": "hush"}')
    settings = WithArchive.load()
    assert sorted(settings.secrets()) == ["hush", "s3cret", TOKEN]
    assert "s3cret" not in repr(settings)


def test_a_variable_that_is_not_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}DATABRICKS_JOB_CLUSTER", '{"num_workers": 2')
    assert message_of().startswith("STOCK_LAKEHOUSE_DATABRICKS_JOB_CLUSTER: is not JSON (")
    monkeypatch.setenv(f"{PREFIX}DATABRICKS_JOB_CLUSTER", "2 workers")
    assert message_of().startswith("databricks.job_cluster: Input should be a valid dictionary")


def test_a_variable_in_small_letters_is_an_error_and_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("stock_lakehouse_tickers", "NVDA")
    assert message_of().startswith(
        "stock_lakehouse_tickers: no such setting; did you mean STOCK_LAKEHOUSE_TICKERS? allowed: STOCK_LAKEHOUSE_"
    )


def test_no_two_settings_share_a_variable() -> None:
    """`sql_engine` and the field `engine` of a group `sql` would."""
    variables = [variable_of(path) for path, _ in fields_of(Settings)]
    assert len(set(variables)) == len(variables)


def test_an_engine_knows_the_variable_of_its_address_without_the_settings() -> None:
    """A job on Databricks imports the engines, and not the settings."""
    assert variable_of(("spark_remote",)) == REMOTE_VARIABLE


# docs/settings.md


def test_the_tables_of_the_document_are_up_to_date() -> None:
    text = settings_tables.DOCUMENT.read_text(encoding="utf-8")
    if settings_tables.written(text) != text:
        pytest.fail("docs/settings.md is stale: run `make docs`, and look at what it changed")


def test_every_setting_has_a_description() -> None:
    assert [".".join(path) for path, field in fields_of(Settings) if not field.description] == []


def test_a_new_group_needs_a_place_in_the_document_and_gets_its_table_there() -> None:
    text = settings_tables.DOCUMENT.read_text(encoding="utf-8")
    with pytest.raises(settings_tables.TableError, match=r"there are settings of .*, archive$"):
        settings_tables.written(text, WithArchive)
    place = "\n## Archive\n\n<!-- settings of archive -->\nold\n<!-- end of settings -->\n\nMore text.\n"
    assert settings_tables.written(text + place, WithArchive) == (
        text
        + """
## Archive

<!-- settings of archive -->

| name | type or allowed values | default | what it is |
|---|---|---|---|
| `file` | path | none | database file |
| `threads` | whole number, ≥ 1 | 2 | threads of a query |
| `layouts` | table | none | layout of each table |
| `schemas` | list | `main` | schemas that are created |
| `token`, only as the variable `STOCK_LAKEHOUSE_ARCHIVE_TOKEN` | text | none | token of the server |
| `passwords`, only as the variable `STOCK_LAKEHOUSE_ARCHIVE_PASSWORDS` | table | none | password of each user |
| `port_file`, only as the variable `STOCK_LAKEHOUSE_ARCHIVE_PORT_FILE` | path | none | where the port is written |

<!-- end of settings -->

More text.
"""
    )


def test_a_setting_that_cannot_be_described_is_an_error() -> None:
    class Silent(Settings):
        silent: int = 1

    with pytest.raises(settings_tables.TableError, match="silent: has no description"):
        settings_tables.tables_of(Silent)

    class Strange(Settings):
        strange: bytes = Field(b"", description="of a type that the tables do not know")

    with pytest.raises(settings_tables.TableError, match=r"strange: .*bytes.* has no name for operators yet"):
        settings_tables.tables_of(Strange)


def test_a_description_names_files_of_the_documentation_which_become_links() -> None:
    class Linking(Settings):
        linking: float | str = Field(0.5, description="a|b, docs/sources.md, docs/settings.md#the-exchange")

    line = settings_tables.tables_of(Linking)["Settings"].splitlines()[-1]
    assert line == r"| `linking` | number or text | 0.5 | a\|b, [sources.md](sources.md), [below](#the-exchange) |"
