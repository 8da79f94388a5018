"""The files of a lake: a folder and a bucket do the same; what a store refuses is said in words that help."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import deltalake
import pyarrow as pa
import pytest
import sqlalchemy.exc
from deltalake.exceptions import DeltaError
from pyspark.errors import PySparkException, PythonException
from pyspark.sql import SparkSession

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.raw_csv import RawCsv
from stock_lakehouse.lake.reading import UnknownTickerError, read_table
from stock_lakehouse.lake.storage import (
    Bucket,
    ChangedError,
    DeniedError,
    Storage,
    StorageError,
    storage_at,
    storage_error,
)
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, RESTATEMENTS, TABLES
from stock_lakehouse_tests import s3


def test_a_folder_lists_creates_replaces_and_removes(tmp_path: Path) -> None:
    behaves(storage_at(tmp_path / "lake"))


def test_a_bucket_does_what_a_folder_does(s3_root: str) -> None:
    behaves(storage_at(s3_root))


def behaves(storage: Storage) -> None:
    assert list(storage.walk("raw")) == []
    storage.create("raw/ticker=A%5EB/one.csv", b"1")
    storage.create("raw/ticker=A=B/two.csv", b"22")
    storage.create("rawer/three.csv", b"333")
    found = {file.path: file for file in storage.walk("raw")}
    assert {path: (file.name, file.size) for path, file in found.items()} == {
        "raw/ticker=A%5EB/one.csv": ("one.csv", 1),
        "raw/ticker=A=B/two.csv": ("two.csv", 2),
    }
    assert list(storage.walk_partitions("raw", 1, "two.csv")) == [found["raw/ticker=A=B/two.csv"]]
    assert [*storage.walk_partitions("raw", 0, "two.csv"), *storage.walk_partitions("raw", 2, "two.csv")] == []
    assert [*storage.walk_partitions("none", 1, "two.csv")] == []
    asked = ("raw/ticker=A%5EB/one.csv", "raw/ticker=A%5EB/two.csv")
    assert storage.present("raw", asked) == {asked[0]: found[asked[0]]}
    with pytest.raises(FileExistsError):
        storage.create("raw/ticker=A=B/two.csv", b"other")
    assert storage.read("raw/ticker=A=B/two.csv") == b"22"
    with pytest.raises(FileNotFoundError):
        storage.read("raw/none.csv")

    storage.create("beside/new", b"4444")
    storage.take(storage, "beside/new", "raw/ticker=A=B/two.csv", found["raw/ticker=A=B/two.csv"])
    storage.create("beside/first", b"5")
    storage.take(storage, "beside/first", "raw/ticker=C/four.csv", None)
    now = {file.path: file for file in storage.walk("raw")}
    assert storage.read("raw/ticker=A=B/two.csv") == b"4444"
    assert storage.read("raw/ticker=C/four.csv") == b"5"
    assert {path for path in found if now[path].version_tag != found[path].version_tag} == {"raw/ticker=A=B/two.csv"}

    storage.delete(["raw/ticker=C/four.csv", "raw/none.csv"])
    storage.delete_folder("raw")
    storage.delete_folder("none")
    assert list(storage.walk("raw")) == []
    assert [file.path for file in storage.walk("rawer")] == ["rawer/three.csv"]
    assert list(storage.map(len, ["a", "bb"])) == [1, 2]


def test_two_writers_of_a_folder_leave_each_others_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is between its temporary file and the rename while the other creates a file, even one of the same name."""
    folder, write = storage_at(tmp_path / "lake"), Path.write_bytes
    names = iter(["b.csv", "a.csv"])

    def another_writes_meanwhile(path: Path, content: bytes) -> int:
        written = write(path, content)
        if name := next(names, None):
            folder.create(f"raw/{name}", content)
        return written

    monkeypatch.setattr(Path, "write_bytes", another_writes_meanwhile)
    folder.create("raw/a.csv", b"1")
    assert {file.name for file in folder.walk("raw")} == {"a.csv", "b.csv"}


def test_a_file_is_on_the_disk_before_its_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of a disk that loses power: what was not synced is gone, content and name apart."""
    folder, done = storage_at(tmp_path / "lake"), list[tuple[str, str]]()
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        done.append(("rename", str(target)))
        assert done[-2] == ("sync", str(source)), "a name without its bytes"
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    folder.create("raw/ticker=A/one.csv", b"1")
    target = tmp_path / "lake" / "raw" / "ticker=A" / "one.csv"
    after = {path for what, path in done[done.index(("rename", str(target))) :] if what == "sync"}
    assert after == {str(one) for one in target.parents[:4]}, "the folder of the name, and those of new folders' names"


def test_a_bucket_takes_nothing_in_place_of_a_file_that_changed_since_it_was_looked_at(s3_root: str) -> None:
    bucket = Bucket(s3_root)
    bucket.create("table/data", b"old")
    (there,) = bucket.walk("table")
    bucket.put("table/data", b"another writer's", there.version_tag)
    bucket.create("beside/a", b"mine")
    for looked_at in (there, None):
        with pytest.raises(ChangedError):
            bucket.take(bucket, "beside/a", "table/data", looked_at)
    assert bucket.read("table/data") == b"another writer's"
    bucket.delete(["table/data"])
    with pytest.raises(ChangedError):
        bucket.take(bucket, "beside/a", "table/data", there)
    assert list(bucket.walk("table")) == []


def test_a_write_that_is_sent_again_since_its_answer_was_lost_meets_itself(s3_root: str) -> None:
    bucket = Bucket(s3_root)
    bucket.create("table/data", b"mine")
    bucket.create("table/data", b"mine")
    bucket.create("beside/a", b"mine")
    bucket.take(bucket, "beside/a", "table/data", None)


def test_of_many_that_create_a_file_at_once_one_does(s3_root: str) -> None:
    created = []

    def create(number: int) -> None:
        try:
            Bucket(s3_root).create("one", f"{number}".encode())
        except FileExistsError:
            return
        created.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    assert len(created) == 1
    assert Bucket(s3_root).read("one") == f"{created[0]}".encode()


def test_a_bucket_that_is_not_there_is_said_to_be_missing(s3_bucket: str) -> None:
    for root in ("s3://no-such-bucket/lake", "s3://no-such-bucket"):
        with pytest.raises(StorageError, match="there is no bucket no-such-bucket; create it, or set lake_root"):
            Bucket(root).check(["raw"])


@contextmanager
def answering(
    status: int,
    code: str,
    methods: tuple[str, ...],
    fails: Callable[[str], bool] = lambda path: True,
    body: str | None = None,
) -> Iterator[str]:
    """A store that answers requests of `methods` whose path and query `fails` with an error, others with an empty listing.

    `body`: of the answer in place of that of an error.
    """
    failure = f"<Error><Code>{code}</Code></Error>" if body is None else body

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            failed = self.command in methods and fails(unquote(self.path))
            text = failure if failed else "<ListBucketResult></ListBucketResult>"
            self.send_response(status if failed else 200)
            self.send_header("content-length", str(len(text)))
            self.send_header("etag", '"1"')
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


DENIED = "access denied; the policy of these credentials must allow"


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (403, "AccessDenied", f"^s3://accessdenied/lake/raw: {DENIED} s3:ListBucket here$"),
        (403, "InvalidAccessKeyId", "rejects these credentials; check AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "rejects these credentials"),
        (400, "ExpiredToken", "AWS_SESSION_TOKEN"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region; set AWS_REGION"),
        (418, "Teapot", "^s3://teapot/lake/raw: Generic S3 error: .*418"),
    ],
)
def test_what_a_store_refuses_is_said_with_what_to_change(status: int, code: str, told: str) -> None:
    with answering(status, code, ("GET",)) as endpoint, s3.variables(s3.environment(endpoint)):
        bucket = Bucket(f"s3://{code.lower()}/lake")  # another for each: clients are kept
        with pytest.raises(StorageError, match=told):
            bucket.check(["raw"])


def test_what_may_not_be_written_or_removed_is_said_with_the_permission_that_lacks() -> None:
    with (
        answering(403, "AccessDenied", ("PUT", "POST", "DELETE")) as endpoint,
        s3.variables(s3.environment(endpoint)),
    ):
        bucket = Bucket("s3://read-only/lake")
        bucket.check(["raw"])
        with pytest.raises(StorageError, match=f"^s3://read-only/lake/k: {DENIED} s3:PutObject here$"):
            bucket.put("k", b"", None)
        with pytest.raises(StorageError, match=f"^s3://read-only/lake/k: {DENIED} s3:DeleteObject here$"):
            bucket.delete(["k"])
        bucket.delete_folder(".staging/k")


def test_an_object_that_may_not_be_deleted_among_others_is_said_with_the_permission_that_lacks() -> None:
    error = (
        "<DeleteResult><Error><Key>lake/a</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        "<Deleted><Key>lake/b</Key></Deleted></DeleteResult>"
    )
    with (
        answering(200, "", ("POST",), body=error) as endpoint,
        s3.variables(s3.environment(endpoint)),
        pytest.raises(DeniedError, match=f"^s3://some/lake/a: {DENIED} s3:DeleteObject here$"),
    ):
        Bucket("s3://some/lake").delete(["a", "b"])


def may_list(*folders: str) -> Callable[[str], bool]:
    """Which requests are refused where only `folders` of the lake may be listed."""

    def refused(request: str) -> bool:
        prefix = re.search(r"[?&]prefix=([^&]*)", request)
        return prefix is not None and not any(prefix[1].startswith(f"lake/{folder}/") for folder in folders)

    return refused


def test_no_one_needs_the_right_to_list_the_root_of_the_lake() -> None:
    tables = [table.path for table in TABLES]
    with (
        answering(403, "AccessDenied", ("GET",), may_list(*tables)) as endpoint,
        s3.variables(s3.environment(endpoint)),
    ):
        lake = Lake("s3://by-path/lake")
        with pytest.raises(StorageError, match="s3:ListBucket"):
            next(lake.storage.walk(""), None)
        lake.check()
        assert lake.version_tags() == set()


def test_who_reads_a_table_needs_the_right_to_list_that_table_and_is_told_so() -> None:
    with (
        answering(403, "AccessDenied", ("GET",), may_list(PROCESSED.path)) as endpoint,
        s3.variables(s3.environment(endpoint)),
    ):
        root = "s3://of-one-table/lake"
        assert read_table(PROCESSED.name, lake_root=root).num_rows == 0
        for name in (FEATURES.name, RESTATEMENTS.name):
            with pytest.raises(StorageError, match=f"lake/curated/.*: {DENIED} s3:ListBucket here$"):
                read_table(name, lake_root=root)
        with pytest.raises(StorageError, match=DENIED):
            Lake(root).check()


def test_an_unknown_ticker_is_told_as_such_to_who_may_not_read_raw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_raw(*_: object, **__: object) -> None:
        raise DeniedError("raw: access denied")

    lake = Lake(tmp_path / "lake")
    lake.curated.prepare()
    monkeypatch.setattr(RawCsv, "ticker_years", no_raw)
    with pytest.raises(UnknownTickerError, match="no ticker ZZZ in the lake"):
        read_table(CURATED.name, tickers="ZZZ", lake_root=lake.root)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "no answer; check AWS_ENDPOINT_URL"),
        ("AWS_ALLOW_HTTP", None, "AWS_ENDPOINT_URL is http and not https; set AWS_ALLOW_HTTP=true"),
        ("AWS_SECRET_ACCESS_KEY", None, "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_a_variable_that_is_missing_or_wrong_is_named(name: str, value: str | None, told: str) -> None:
    values = {**s3.environment("http://127.0.0.1:9"), name: value}
    bucket = Bucket(f"s3://{name.lower().replace('_', '-')}/lake")
    with s3.variables({one: text for one, text in values.items() if text}), pytest.raises(StorageError, match=told):
        bucket.check(["raw"])


def what_is_told(error: BaseException) -> str | None:
    found = storage_error("a table", error)
    return None if found is None else f"{type(found).__name__}: {found}"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("InternalError in my transform"),
        RuntimeError("Generic S3 error: 500 Internal Server Error"),
        KeyError("SlowDown"),
        ValueError("No space left on device"),
        FileNotFoundError(2, "No such file or directory", "/lake/503 Service Unavailable/No space left on device"),
        sqlite3.OperationalError("no such table: InternalError"),
        DeltaError("column InternalError is not in the table"),
        PySparkException("cannot resolve column InternalError, SlowDown"),
        PythonException("ValueError: Error performing GET http://me: 500 Internal Server Error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_word_in_an_error_makes_it_one_of_the_store(error: Exception) -> None:
    assert what_is_told(error) is None


S3_503 = (
    "Generic S3 error: Error performing PUT http://127.0.0.1:1/b/k in 1ms, after 1 retries, max_retries: 1, retry_timeout: 3s  - "
    "Server returned non-2xx status code: 503 Service Unavailable: <Error><Code>SlowDown</Code></Error>"
)


@pytest.mark.parametrize("error", [OSError(S3_503), DeltaError(S3_503), PySparkException(S3_503)])
def test_a_store_that_fails_is_known_by_what_its_client_says(error: Exception) -> None:
    assert str(what_is_told(error)).startswith("StorageError: a table: the store failed after every retry")


S3_403 = (
    "The operation lacked the necessary privileges to complete for path lake/k: Error performing {} in 1ms - Server returned "
    "non-2xx status code: 403 Forbidden: <Error><Code>{}</Code></Error>"
)


@pytest.mark.parametrize(
    ("request_line", "action"),
    [
        ("GET http://127.0.0.1:1/b/lake/k", "s3:GetObject"),
        ("HEAD https://b.s3.us-east-1.amazonaws.com/lake/k", "s3:GetObject"),
        ("GET http://127.0.0.1:1/b?list-type=2&prefix=lake%2Fk", "s3:ListBucket"),
        ("PUT http://127.0.0.1:1/b/lake/k", "s3:PutObject"),
        ("POST http://127.0.0.1:1/b/lake/k?uploads", "s3:PutObject"),
        ("POST http://127.0.0.1:1/b?delete", "s3:DeleteObject"),
        ("DELETE http://127.0.0.1:1/b/lake/k", "s3:DeleteObject"),
    ],
)
@pytest.mark.parametrize("kind", [OSError, DeltaError, PySparkException])
def test_a_denied_request_of_a_library_names_the_action_that_is_missing(
    kind: Callable[[str], Exception], request_line: str, action: str
) -> None:
    told = str(what_is_told(kind(S3_403.format(request_line, "AccessDenied"))))
    assert told.startswith("DeniedError: a table: ")
    assert f"must allow {action} here" in told
    assert ("s3:ListBucket" in told) == (action in ("s3:GetObject", "s3:ListBucket"))
    of_key = "User: a is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:eu-west-1:1:key/k because no policy does"
    denied = S3_403.format(request_line, "AccessDenied").replace("</Code>", f"</Code><Message>{of_key}</Message>")
    assert "must allow kms:Decrypt on arn:aws:kms:eu-west-1:1:key/k here" in str(what_is_told(kind(denied)))
    broken = denied.replace("perform: kms", "perform:\n  \x1b[31m↳\x1b[0m kms")
    assert "must allow kms:Decrypt on arn:aws:kms:eu-west-1:1:key/k here" in str(what_is_told(kind(broken)))
    rejected = str(what_is_told(kind(S3_403.format(request_line, "InvalidAccessKeyId"))))
    assert rejected.startswith("StorageError: a table: the store rejects these credentials")


def test_a_full_disk_is_known_by_its_number_and_sqlites_by_its_code(tmp_path: Path) -> None:
    assert str(what_is_told(OSError(errno.ENOSPC, "whatever it is called here"))).startswith("NoSpaceError")
    assert str(what_is_told(PySparkException("object store error: No space left on device (os error 28)"))).startswith(
        "NoSpaceError"
    )
    with contextlib.closing(sqlite3.connect(tmp_path / "records.db")) as database:
        database.execute("PRAGMA max_page_count = 2")
        database.execute("CREATE TABLE one (value)")
        with pytest.raises(sqlite3.OperationalError) as full:
            database.execute("INSERT INTO one VALUES (zeroblob(100000))")
    wrapped = sqlalchemy.exc.OperationalError("INSERT", {}, full.value)
    for error in (full.value, wrapped):
        assert str(what_is_told(error)).startswith("NoSpaceError")


def test_deltalakes_error_of_a_store_that_fails_is_named() -> None:
    with (
        answering(500, "InternalError", ("GET",)) as endpoint,
        s3.variables(s3.environment(endpoint)),
        pytest.raises(OSError, match="500 Internal Server Error") as failed,
    ):
        deltalake.DeltaTable("s3://failing/table", storage_options={"max_retries": "1", "retry_timeout": "3s"})
    assert str(what_is_told(failed.value)).startswith("StorageError")


def test_a_bucket_called_like_a_code_is_not_taken_for_it() -> None:
    with (
        answering(418, "Teapot", ("GET",)) as endpoint,
        s3.variables(s3.environment(endpoint)),
        pytest.raises(StorageError, match=r"^s3://slow/AccessDenied/SlowDown: Generic S3 error: .*418"),
    ):
        next(Bucket("s3://slow/AccessDenied").walk("SlowDown"), None)


def test_what_a_function_of_the_users_raises_on_the_engine_is_not_told_as_the_stores(spark: SparkSession) -> None:
    def fail(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        raise ValueError("InternalError in my transform")

    with pytest.raises(PythonException, match="ValueError: InternalError in my transform"):
        spark.range(3).mapInArrow(fail, "id bigint").collect()
