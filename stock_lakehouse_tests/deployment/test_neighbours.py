"""What stands beside the places of a role is refused: other keys of the bucket, other buckets, databases, streams, workgroups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from stock_lakehouse_tests import s3
from stock_lakehouse_tests.deployment.gate import Caller
from stock_lakehouse_tests.deployment.world import World, world

PREFIX = "team/lake"
# Keys beside the places of every role: a name that begins like a table's, one above the lake, another lake, the bucket's root.
BESIDE = (
    f"{PREFIX}/raw/stocks_daily_evil/k",
    f"{PREFIX}/curated_evil/k",
    f"{PREFIX}_evil/curated/stocks_daily/k",
    f"{PREFIX}/k",
    "team/k",
    "team/other/curated/stocks_daily/k",
    "curated/stocks_daily/k",
    "k",
)
Call = Callable[[], Any]


@pytest.fixture(scope="module")
def place() -> Iterator[World]:
    with world() as found:
        admin = s3.client(found.endpoint)
        admin.create_bucket(Bucket="another-lake")
        for key in (*BESIDE, f"{PREFIX}/raw/stocks_daily/year=2023/landed.csv"):
            admin.put_object(Bucket=found.account.bucket, Key=key, Body=b"x")
        admin.put_object(Bucket="another-lake", Key=f"{PREFIX}/curated/stocks_daily/k", Body=b"x")
        yield found


def calls(place: World) -> dict[str, Call]:
    """Calls of a neighbour, by what they do."""
    store, ours = s3.client(place.gate.url), place.account.bucket
    found: dict[str, Call] = {}
    for key in BESIDE:
        found[f"get {key}"] = partial(store.get_object, Bucket=ours, Key=key)
        found[f"put {key}"] = partial(store.put_object, Bucket=ours, Key=key, Body=b"y")
        found[f"delete {key}"] = partial(store.delete_object, Bucket=ours, Key=key)
    for prefix in ("", "team/", f"{PREFIX}_evil/", f"{PREFIX}/", f"{PREFIX}/raw/stocks_daily_evil/"):
        found[f"list {prefix!r}"] = partial(store.list_objects_v2, Bucket=ours, Prefix=prefix)
    other = f"{PREFIX}/curated/stocks_daily/k"
    table = f"{PREFIX}/curated/stocks_daily/k"
    landed = f"{PREFIX}/raw/stocks_daily/year=2023/landed.csv"
    glue, kinesis = s3.client(place.gate.url, "glue"), s3.client(place.gate.url, "kinesis")
    athena = s3.client(place.gate.url, "athena")
    found |= {
        "list without a prefix": partial(store.list_objects_v2, Bucket=ours),
        "list versions": partial(store.list_object_versions, Bucket=ours),
        "get of another bucket": partial(store.get_object, Bucket="another-lake", Key=other),
        "put to another bucket": partial(store.put_object, Bucket="another-lake", Key=other, Body=b"y"),
        "list another bucket": partial(store.list_objects_v2, Bucket="another-lake", Prefix=f"{PREFIX}/curated/"),
        "replace a landed file": partial(store.put_object, Bucket=ours, Key=landed, Body=b"y"),
        "delete a landed file": partial(store.delete_object, Bucket=ours, Key=landed),
        "delete a version": partial(store.delete_object, Bucket=ours, Key=table, VersionId="1"),
        "make an object public": partial(store.put_object_acl, Bucket=ours, Key=table, ACL="public-read"),
        "the bucket's policy": partial(store.put_bucket_policy, Bucket=ours, Policy="{}"),
        "the bucket itself": partial(store.delete_bucket, Bucket=ours),
        "another database": partial(glue.get_tables, DatabaseName="payroll"),
        "delete the database": partial(glue.delete_database, Name="lakehouse"),
        "a table of another database": partial(
            glue.create_table, DatabaseName="payroll", TableInput={"Name": "curated_stocks_daily"}
        ),
        "another stream": partial(kinesis.describe_stream_summary, StreamName="payroll"),
        "write to the stream": partial(kinesis.put_record, StreamName="stock_ticks", Data=b"x", PartitionKey="x"),
        "another workgroup": partial(
            athena.start_query_execution, QueryString="SELECT 1", WorkGroup="primary", ClientRequestToken="0" * 32
        ),
        "delete the workgroup": partial(athena.delete_work_group, WorkGroup="lakehouse"),
    }
    return found


def test_every_call_of_a_neighbour_is_refused_to_every_role(place: World) -> None:
    answers = set()
    attempts = calls(place)
    assert len(attempts) >= 24
    for name, role in place.roles.items():
        caller = Caller(name, "a neighbour", place.policies_of(role, PREFIX), place.bucket_policies(PREFIX))
        for what, call in attempts.items():
            with place.gate.called_by(caller):
                try:
                    call()
                except ClientError as error:
                    answers.add((name, what, error.response["Error"]["Code"]))
                else:
                    answers.add((name, what, "done"))
    refused = ("AccessDenied", "AccessDeniedException")
    assert {answer for answer in answers if answer[2] not in refused} == set()
    assert len(answers) == len(place.roles) * len(attempts)


def test_a_role_may_do_what_its_places_say_and_a_missing_object_is_told_as_missing(place: World) -> None:
    """The refusals above are of the places, and not of everything."""
    store, bucket = s3.client(place.gate.url), place.account.bucket
    run = place.roles["run"]
    caller = Caller("run", "a run", place.policies_of(run, PREFIX), place.bucket_policies(PREFIX))
    with place.gate.called_by(caller):
        store.put_object(Bucket=bucket, Key=f"{PREFIX}/raw/stocks_daily/year=2023/new.csv", Body=b"x", IfNoneMatch="*")
        with pytest.raises(ClientError) as missing:
            store.get_object(Bucket=bucket, Key=f"{PREFIX}/.locks/curated_stocks_daily.lease")
    assert missing.value.response["Error"]["Code"] == "NoSuchKey"
    reader = Caller("reader", "reads", place.policies_of(place.roles["reader"], PREFIX))
    with place.gate.called_by(reader), pytest.raises(ClientError) as denied:
        store.get_object(Bucket=bucket, Key=f"{PREFIX}/raw/stocks_daily/year=2023/new.csv")
    assert denied.value.response["Error"]["Code"] == "AccessDenied"
