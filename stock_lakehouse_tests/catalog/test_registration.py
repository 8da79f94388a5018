"""Registration in Glue, against moto: the forms, the upsert, partitions, refusals, and kills between any two writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest
from botocore.awsrequest import AWSResponse

from stock_lakehouse.aws import client as aws_client
from stock_lakehouse.catalog.entries import Entry
from stock_lakehouse.catalog.glue import (
    PARTITIONS,
    CatalogConflictError,
    CatalogError,
    CatalogTypeError,
    GlueCatalog,
)
from stock_lakehouse.catalog.registration import Registration, prepare, registrations_of, table_input
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.sql.engine import PermissionMissingError
from stock_lakehouse.tables import BY_NAME, TABLES
from stock_lakehouse_tests import my_indicators, s3
from stock_lakehouse_tests.catalog.lakes import KilledError, contents, kill_at, on_s3

SERVED = {"curated_stocks_daily_served", "stocks_features_served"}
NO_WRITES = 0


def register(lake: Lake, database: str, client: Any, **options: Any) -> GlueCatalog:
    prepare(lake)
    catalog = GlueCatalog(database, str(lake.root), client)
    catalog.register(registrations_of(lake), **options)
    return catalog


def columns(held: dict[str, Any]) -> dict[str, str]:
    table = held["table"]
    return {one["Name"]: one["Type"] for one in (*table["StorageDescriptor"]["Columns"], *table["PartitionKeys"])}


def test_every_table_is_registered_in_the_form_that_its_readers_need(lake: Lake, database: str, glue: Any) -> None:
    register(lake, database, glue)
    held = contents(glue, database)
    assert held.keys() == {*BY_NAME, *SERVED}
    for table in TABLES:
        registered = held[table.name]["table"]
        assert registered["Description"] == table.description
        assert registered["Owner"] == "market-data"
        assert registered["TableType"] == "EXTERNAL_TABLE"
        assert registered["Parameters"]["comment"] == table.description
        assert registered["Parameters"]["classification"] == table.format
        found = columns(held[table.name])
        assert {name: kind for name, kind in found.items() if name != "year_in_file"} == {
            column.name: column.type for column in table.columns
        }
        described = (*registered["StorageDescriptor"]["Columns"], *registered["PartitionKeys"])
        assert all(0 < len(column["Comment"]) <= 255 for column in described)
    delta = held["curated_stocks_daily"]["table"]
    assert delta["Parameters"]["table_type"] == "DELTA"
    assert delta["Parameters"]["spark.sql.sources.provider"] == "delta"
    assert delta["StorageDescriptor"]["SerdeInfo"]["Parameters"]["path"] == f"{lake.root}/curated/stocks_daily"
    assert delta["PartitionKeys"] == []
    parquet = held["processed_stocks_daily"]["table"]
    assert [key["Name"] for key in parquet["PartitionKeys"]] == ["ticker", "year"]
    assert [key["Name"] for key in held["raw_stocks_daily"]["table"]["PartitionKeys"]] == ["year"]
    assert [key["Name"] for key in held["stocks_features_served"]["table"]["PartitionKeys"]] == ["year"]


def test_raw_is_registered_with_its_columns_at_the_positions_of_its_files(lake: Lake, database: str, glue: Any) -> None:
    register(lake, database, glue)
    [path] = [path for path in lake.raw.paths() if "year=2019" in path][:1]
    header = lake.storage.read(path).decode().split("\n", 1)[0].replace('"', "").split(",")
    registered = contents(glue, database)["raw_stocks_daily"]["table"]["StorageDescriptor"]["Columns"]
    assert [{"year_in_file": "year"}.get(one["Name"], one["Name"]) for one in registered] == header


def test_partitions_have_the_values_of_their_rows_and_the_places_of_their_files(
    lake: Lake, database: str, glue: Any
) -> None:
    register(lake, database, glue)
    held = contents(glue, database)
    partitions = {
        tuple(one["Values"]): one["StorageDescriptor"]["Location"]
        for one in held["processed_stocks_daily"]["partitions"]
    }
    assert {ticker for ticker, _ in partitions} == {"BAC^B", "BF.B", "BRK-B", "C=F"}
    keys = {key for key in s3.objects(str(lake.root)) if key.startswith("processed/stocks_daily/ticker=")}
    assert {f"{place}/data.parquet".removeprefix(f"{lake.root}/") for place in partitions.values()} == keys
    assert len(partitions) == len(keys) == 8
    served = held["curated_stocks_daily_served"]["partitions"]
    assert [one["Values"] for one in served] == [["2019"], ["2020"]]
    objects = s3.objects(str(lake.root))
    for one in served:
        assert f"{one['StorageDescriptor']['Location']}/data.parquet".removeprefix(f"{lake.root}/") in objects
    assert [one["Values"] for one in held["raw_stocks_daily"]["partitions"]] == [["2019"], ["2020"]]
    assert held["curated_stocks_daily"]["partitions"] == []


def test_statistics_are_those_of_the_log(lake: Lake, database: str, glue: Any) -> None:
    register(lake, database, glue)
    parameters = contents(glue, database)["curated_stocks_daily"]["table"]["Parameters"]
    # Four tickers in nine sessions, one bar of them in quarantine.
    assert (parameters["recordCount"], parameters["objectCount"]) == ("35", "8")
    assert int(parameters["sizeKey"]) > 8 * 1000


def test_a_second_run_makes_one_call_and_writes_nothing(lake: Lake, database: str, glue: Any) -> None:
    register(lake, database, glue)
    before, objects = contents(glue, database), s3.objects(str(lake.root))
    prepare(lake)
    catalog = GlueCatalog(database, str(lake.root))
    outcomes = catalog.register(registrations_of(lake))
    assert not any(outcome.changed for outcome in outcomes)
    assert catalog.calls == {"GetTables": 1}
    assert catalog.writes == NO_WRITES
    assert contents(glue, database) == before
    assert s3.objects(str(lake.root)) == objects
    again = GlueCatalog(database, str(lake.root))
    again.register(registrations_of(lake), verify=True)
    assert again.writes == NO_WRITES


def test_what_others_noted_on_a_table_stays_and_costs_no_write(lake: Lake, database: str, glue: Any) -> None:
    register(lake, database, glue)
    table = glue.get_table(DatabaseName=database, Name="stocks_features")["Table"]
    noted = {name: table[name] for name in ("Name", "Description", "Owner", "TableType", "StorageDescriptor")}
    noted |= {"PartitionKeys": [], "Parameters": {**table["Parameters"], "reviewed-by": "audit"}, "Retention": 7}
    glue.update_table(DatabaseName=database, TableInput=noted)
    catalog = GlueCatalog(database, str(lake.root), aws_client("glue"))
    catalog.register(registrations_of(lake))
    assert catalog.writes == NO_WRITES
    glue.update_table(DatabaseName=database, TableInput={**noted, "Description": "older"})
    outcomes = {one.name: one.action for one in catalog.register(registrations_of(lake))}
    assert [name for name, action in outcomes.items() if action != "unchanged"] == ["stocks_features"]
    kept = glue.get_table(DatabaseName=database, Name="stocks_features")["Table"]
    assert kept["Parameters"]["reviewed-by"] == "audit"
    assert kept["Retention"] == 7
    assert kept["Description"] == BY_NAME["stocks_features"].description


def with_type(lake: Lake, name: str, column: str, kind: str) -> Registration:
    """The registration of a table whose schema has another type for one column."""
    [wanted] = [one for one in registrations_of(lake) if one.name == name]
    storage = wanted.wanted["StorageDescriptor"]
    changed = [{**one, "Type": kind} if one["Name"] == column else one for one in storage["Columns"]]
    return Registration(
        {**wanted.wanted, "StorageDescriptor": {**storage, "Columns": changed}}, wanted.partitions, wanted.state
    )


@pytest.mark.parametrize(
    ("before", "after"), [("double", "string"), ("bigint", "int"), ("double", "float"), ("int", "double")]
)
def test_a_type_that_cannot_take_the_place_of_another_is_refused_with_both_named(
    lake: Lake, database: str, glue: Any, before: str, after: str
) -> None:
    prepare(lake)
    catalog = GlueCatalog(database, str(lake.root), glue)
    catalog.register([with_type(lake, "curated_stocks_daily", "close", before)])
    held, writes = contents(glue, database), catalog.writes
    with pytest.raises(CatalogTypeError) as refused:
        catalog.register([with_type(lake, "curated_stocks_daily", "close", after)])
    assert (
        f"{database}.curated_stocks_daily: column close is registered as {before}, and the schema has {after}"
        in str(refused.value)
    )
    assert (contents(glue, database), catalog.writes) == (held, writes)


@pytest.mark.parametrize(("before", "after"), [("int", "bigint"), ("float", "double")])
def test_a_wider_type_is_an_update(lake: Lake, database: str, glue: Any, before: str, after: str) -> None:
    prepare(lake)
    catalog = GlueCatalog(database, str(lake.root), glue)
    catalog.register([with_type(lake, "curated_stocks_daily", "close", before)])
    [outcome] = catalog.register([with_type(lake, "curated_stocks_daily", "close", after)])
    assert outcome.action == "updated"
    assert columns(contents(glue, database)["curated_stocks_daily"])["close"] == after


def test_a_column_that_went_is_named_and_partitions_get_the_present_columns(
    lake: Lake, database: str, glue: Any
) -> None:
    prepare(lake)
    [wanted] = [one for one in registrations_of(lake) if one.name == "processed_stocks_daily"]
    storage = wanted.wanted["StorageDescriptor"]
    more = [*storage["Columns"], {"Name": "vwap", "Type": "double", "Comment": "of an older program"}]
    older = Registration(
        {**wanted.wanted, "StorageDescriptor": {**storage, "Columns": more}}, wanted.partitions, wanted.state
    )
    catalog = GlueCatalog(database, str(lake.root), glue)
    catalog.register([older])
    [outcome] = catalog.register([wanted])
    assert (outcome.action, outcome.dropped, outcome.moved) == ("updated", ["vwap"], 8)
    held = contents(glue, database)["processed_stocks_daily"]
    assert "vwap" not in columns(held)
    for partition in held["partitions"]:
        assert "vwap" not in [one["Name"] for one in partition["StorageDescriptor"]["Columns"]]
    assert [one.changed for one in catalog.register([wanted])] == [False]


def changed_partitions(lake: Lake) -> list[Registration]:
    """The registrations of a lake in which partitions were added, moved and removed."""
    changed = []
    for one in registrations_of(lake):
        if not one.partitions:
            changed.append(one)
            continue
        items = sorted(one.partitions.items())
        partitions = dict(items[1:]) | {(*items[0][0][:-1], "2031"): f"{items[0][1]}-new"}
        partitions[items[-1][0]] = f"{items[-1][1]}-moved"
        changed.append(Registration(one.wanted, partitions, one.state, one.is_serving_copy))
    return changed


def test_a_moved_partition_is_updated_in_place_and_a_gone_one_removed(lake: Lake, database: str, glue: Any) -> None:
    catalog = register(lake, database, glue)
    calls = dict(catalog.calls)
    outcomes = {one.name: one for one in catalog.register(changed_partitions(lake))}
    parquet = outcomes["processed_stocks_daily"]
    assert (parquet.action, parquet.added, parquet.moved, parquet.removed) == ("unchanged", 1, 1, 1)
    held = contents(glue, database)
    for one in changed_partitions(lake):
        found = {tuple(p["Values"]): p["StorageDescriptor"]["Location"] for p in held[one.name]["partitions"]}
        assert found == dict(one.partitions or {})
    assert catalog.calls["BatchUpdatePartition"] == calls.get("BatchUpdatePartition", 0) + 5
    assert catalog.calls["DeleteTable"] == 0


def test_the_partitions_that_others_changed_are_repaired_when_all_are_compared(
    lake: Lake, database: str, glue: Any
) -> None:
    catalog = register(lake, database, glue)
    before = contents(glue, database)
    values = before["processed_stocks_daily"]["partitions"][0]["Values"]
    glue.delete_partition(DatabaseName=database, TableName="processed_stocks_daily", PartitionValues=values)
    assert not any(one.changed for one in catalog.register(registrations_of(lake)))
    outcomes = {one.name: one for one in catalog.register(registrations_of(lake), verify=True)}
    assert outcomes["processed_stocks_daily"].added == 1
    assert contents(glue, database) == before


def test_other_partition_keys_replace_the_table_and_keep_what_others_noted(
    lake: Lake, database: str, glue: Any
) -> None:
    catalog = register(lake, database, glue)
    table = glue.get_table(DatabaseName=database, Name="processed_stocks_daily")["Table"]
    noted = {
        name: table[name]
        for name in ("Name", "Description", "Owner", "TableType", "StorageDescriptor", "PartitionKeys")
    }
    glue.update_table(DatabaseName=database, TableInput={**noted, "Parameters": {**table["Parameters"], "seen": "yes"}})
    [wanted] = [one for one in registrations_of(Lake(lake.root)) if one.name == "processed_stocks_daily"]
    by_year = {
        **wanted.wanted,
        "PartitionKeys": wanted.wanted["PartitionKeys"][1:],
        "StorageDescriptor": {
            **wanted.wanted["StorageDescriptor"],
            "Columns": [*wanted.wanted["StorageDescriptor"]["Columns"], wanted.wanted["PartitionKeys"][0]],
        },
    }
    moved = Registration(by_year, {("2019",): f"{lake.root}/processed/stocks_daily_by_year/year=2019"}, wanted.state)
    [outcome] = catalog.register([moved])
    assert (outcome.action, outcome.added) == ("replaced", 1)
    held = contents(glue, database)["processed_stocks_daily"]
    assert [one["Values"] for one in held["partitions"]] == [["2019"]]
    assert held["table"]["Parameters"]["seen"] == "yes"


def test_the_table_of_another_lake_is_left_alone(lake: Lake, database: str, glue: Any, filled: Path, aws: str) -> None:
    register(lake, database, glue)
    before = contents(glue, database)
    other = Lake(on_s3(filled, aws, f"{database.replace('_', '-')}-other"))
    prepare(other)
    with pytest.raises(CatalogConflictError) as refused:
        GlueCatalog(database, str(other.root), glue).register(registrations_of(other))
    assert f"which is not in the lake {other.root}; set aws.glue_database to another name" in str(refused.value)
    assert contents(glue, database) == before


def test_only_the_serving_copy_has_partitions_where_crawlers_register_them(
    lake: Lake, database: str, glue: Any
) -> None:
    register(lake, database, glue, crawled=True)
    held = contents(glue, database)
    assert {name for name, one in held.items() if one["partitions"]} == SERVED


WRITES = 20  # of a first registration: more than there are


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize(
    "of_writes", [pytest.param(4, id="every fourth"), pytest.param(1, id="each", marks=pytest.mark.soak)]
)
def test_a_registration_that_is_killed_at_a_write_is_completed_by_the_next(
    lake: Lake, database: str, glue: Any, aws: str, answered: bool, of_writes: int
) -> None:
    prepare(lake)
    first, changed = registrations_of(lake), changed_partitions(lake)
    whole = GlueCatalog(f"{database}_whole", str(lake.root), s3.client(aws, "glue"))
    whole.register(first)
    of_first = whole.writes
    expected_first = contents(glue, whole.database)
    whole.register(changed)
    of_change = whole.writes - of_first
    expected = contents(glue, whole.database)
    assert of_first > 10
    assert of_change > 10
    registered = {write: f"{database}_{write}" for write in range(1, of_first + 1, of_writes)}
    for write, name in registered.items():
        dying = s3.client(aws, "glue")
        kill_at(dying, write, answered=answered)
        with pytest.raises(KilledError):
            GlueCatalog(name, str(lake.root), dying).register(first)
        GlueCatalog(name, str(lake.root), s3.client(aws, "glue")).register(first)
        assert contents(glue, name) == _in_database(expected_first, name), f"killed at write {write}"
    # On top of a whole registration. Half of them return to the first state after the kill.
    for number, write in enumerate(range(1, of_change + 1, of_writes)):
        name = [*registered.values()][number % len(registered)]
        dying = s3.client(aws, "glue")
        kill_at(dying, write, answered=answered)
        with pytest.raises(KilledError):
            GlueCatalog(name, str(lake.root), dying).register(changed)
        if number % 2 == 0:
            GlueCatalog(name, str(lake.root), s3.client(aws, "glue")).register(first)
            assert contents(glue, name) == _in_database(expected_first, name), f"killed at write {write} and taken back"
        else:
            GlueCatalog(name, str(lake.root), s3.client(aws, "glue")).register(changed)
            assert contents(glue, name) == _in_database(expected, name), f"killed at write {write} of a change"
            GlueCatalog(name, str(lake.root), s3.client(aws, "glue")).register(first)


def _in_database(held: Any, name: str) -> Any:
    """`held` as the contents of the database `name`."""
    if isinstance(held, dict):
        return {key: name if key == "DatabaseName" else _in_database(value, name) for key, value in held.items()}
    return [_in_database(one, name) for one in held] if isinstance(held, list) else held


def test_orphaned_lines_of_a_killed_publish_are_not_registered(lake: Lake, database: str, glue: Any) -> None:
    ledger = deltalake.DeltaTable(f"{lake.root}/curated/restatements")
    line = ledger.to_pyarrow_table().slice(0, 1)
    curated = lake.curated.open()
    values = {**line.to_pylist()[0], "table_id": str(curated.metadata().id), "from_version": curated.version()}
    before = ledger.to_pyarrow_table().num_rows
    deltalake.write_deltalake(ledger, pa.Table.from_pylist([values], schema=line.schema), mode="append")
    register(lake, database, glue)
    assert deltalake.DeltaTable(f"{lake.root}/curated/restatements").to_pyarrow_table().num_rows == before
    parameters = contents(glue, database)["restatements"]["table"]["Parameters"]
    assert parameters["recordCount"] == str(before)


def test_a_new_lake_without_rows_is_registered_whole(aws: str, database: str, glue: Any) -> None:
    bucket = database.replace("_", "-")
    s3.make_bucket(aws, bucket)
    lake = Lake(f"s3://{bucket}/lake")
    register(lake, database, glue)
    held = contents(glue, database)
    assert held.keys() == {*BY_NAME, *SERVED}
    assert not any(one["partitions"] for one in held.values())
    catalog = GlueCatalog(database, str(lake.root))
    catalog.register(registrations_of(lake))
    assert catalog.writes == NO_WRITES


def test_own_indicators_are_columns_of_features_and_of_their_serving_copy(lake: Lake) -> None:
    own = Lake(LakeOptions(lake_root=lake.root, indicators=Path(my_indicators.__file__)))
    by_name = {one.name: one.wanted for one in registrations_of(own)}
    for name in ("stocks_features", "stocks_features_served"):
        described = {one["Name"]: one for one in by_name[name]["StorageDescriptor"]["Columns"]}
        assert described["day_range"]["Type"] == "double"
        assert "High minus low" in described["day_range"]["Comment"]
    assert "day_range" not in str(by_name["curated_stocks_daily"])


def test_raw_files_of_the_layout_by_ticker_are_counted_and_not_registered(lake: Lake, database: str, glue: Any) -> None:
    by_ticker = "raw/stocks_daily/ticker=AAA/year=2019/bars_2019-12-30_2019-12-31_20200102T000000000000Z_0123abcd.csv"
    lake.storage.create(by_ticker, b'"symbol","date"\n"AAA","2019-12-30"\n')
    prepare(lake)
    outcomes = GlueCatalog(database, str(lake.root), glue).register(registrations_of(lake))
    assert {one.name: one.left_out for one in outcomes if one.left_out} == {"raw_stocks_daily": 1}
    assert [one["Values"] for one in contents(glue, database)["raw_stocks_daily"]["partitions"]] == [["2019"], ["2020"]]


def answering(client: Any, operation: str, status: int, code: str, message: str, times: int) -> None:
    """Have `operation` refused `times` times."""

    class Body:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def stream(self, *_: Any, **__: Any) -> Any:
            yield self.content

        def read(self, *_: Any) -> bytes:
            content, self.content = self.content, b""
            return content

    left = times

    def before_send(request: Any, **_: Any) -> Any:
        nonlocal left
        if left and request.headers.get("X-Amz-Target", b"").decode().endswith(f".{operation}"):
            left -= 1
            text = json.dumps({"__type": code, "message": message}).encode()
            return AWSResponse(request.url, status, {"Content-Type": "application/x-amz-json-1.1"}, Body(text))
        return None

    client.meta.events.register("before-send.glue", before_send)


def test_missing_rights_are_named_as_action_and_resource(lake: Lake, database: str) -> None:
    client = aws_client("glue")
    arn = f"arn:aws:glue:us-east-1:123456789012:table/{database}/raw_stocks_daily"
    said = f"User: arn:aws:iam::123456789012:user/x is not authorized to perform: glue:CreateTable on resource: {arn}"
    answering(client, "CreateTable", 400, "AccessDeniedException", said, 99)
    prepare(lake)
    with pytest.raises(PermissionMissingError) as refused:
        GlueCatalog(database, str(lake.root), client).register(registrations_of(lake))
    assert f"these credentials lack glue:CreateTable on {arn}" in str(refused.value)


def test_throttling_is_waited_for_and_bounded(lake: Lake, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    prepare(lake)
    client = aws_client("glue")
    answering(client, "BatchCreatePartition", 400, "ThrottlingException", "Rate exceeded", 5)
    GlueCatalog(database, str(lake.root), client).register(registrations_of(lake))
    other = aws_client("glue")
    answering(other, "GetTables", 400, "ThrottlingException", "Rate exceeded", 99)
    with pytest.raises(CatalogError, match="Glue throttled GetTables 8 times; run again later"):
        GlueCatalog(database, str(lake.root), other).tables()


def test_a_glue_that_does_not_answer_and_missing_credentials_are_told_apart(
    database: str, monkeypatch: pytest.MonkeyPatch, aws: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(CatalogError, match=r"Glue does not answer: .*; run again: what was registered stays"):
        GlueCatalog(database, "s3://bucket/lake").tables()
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "nowhere")
    with pytest.raises(
        CatalogError, match=r"Glue cannot be called: .*; set AWS_REGION, and credentials by AWS_PROFILE"
    ):
        GlueCatalog(database, "s3://bucket/lake").tables()


def test_a_refused_partition_in_an_answer_of_status_200_is_an_error(lake: Lake, database: str, glue: Any) -> None:
    prepare(lake)

    def refuse(parsed: dict[str, Any], **_: Any) -> None:
        parsed["Errors"] = [
            {
                "PartitionValues": ["BF.B", "2020"],
                "ErrorDetail": {"ErrorCode": "InternalFailure", "ErrorMessage": "busy"},
            }
        ]

    glue.meta.events.register("after-call.glue.BatchCreatePartition", refuse)
    with pytest.raises(
        CatalogError, match=r"refused 1 of 2 partitions, the first \(BF.B, 2020\) with InternalFailure: busy"
    ):
        GlueCatalog(database, str(lake.root), glue).register(registrations_of(lake))


def test_an_error_before_the_digest_leaves_no_digest(lake: Lake, database: str, glue: Any, aws: str) -> None:
    prepare(lake)
    kill_at(glue, 3, answered=True)  # the database, raw, raw's partitions
    with pytest.raises(KilledError):
        GlueCatalog(database, str(lake.root), glue).register(registrations_of(lake))
    held = contents(s3.client(aws, "glue"), database)
    assert PARTITIONS not in held["raw_stocks_daily"]["table"]["Parameters"]


def test_a_comment_longer_than_glue_takes_is_cut_between_words() -> None:
    table = BY_NAME["curated_stocks_daily"]
    wanted = table_input(Entry(table, "s3://bucket/lake/curated/stocks_daily", {}))
    comments = {one["Name"]: one["Comment"] for one in wanted["StorageDescriptor"]["Columns"]}
    assert len(comments["price_basis"]) <= 255
    assert comments["price_basis"].endswith("…")
    whole = next(column.documentation for column in table.columns if column.name == "price_basis")
    assert whole.startswith(f"{comments['price_basis'][:-1]} ")
