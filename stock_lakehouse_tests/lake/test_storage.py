"""The files of a lake: a folder and a bucket do the same; what a store refuses is said in words that help."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stock_lakehouse.lake.storage import Bucket, ChangedError, Storage, StorageError, storage_at
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
    assert {path for path in found if now[path].mark != found[path].mark} == {"raw/ticker=A=B/two.csv"}

    storage.delete(["raw/ticker=C/four.csv", "raw/none.csv"])
    storage.delete_folder("raw")
    storage.delete_folder("none")
    assert list(storage.walk("raw")) == []
    assert [file.path for file in storage.walk("rawer")] == ["rawer/three.csv"]
    assert list(storage.map(len, ["a", "bb"])) == [1, 2]


def test_a_bucket_takes_nothing_in_place_of_a_file_that_changed_since_it_was_looked_at(s3_root: str) -> None:
    bucket = Bucket(s3_root)
    bucket.create("table/data", b"old")
    (there,) = bucket.walk("table")
    bucket.put("table/data", b"another writer's", there.mark)
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
            Bucket(root).check()


@contextmanager
def answering(status: int, code: str, methods: tuple[str, ...]) -> Iterator[str]:
    """A store that answers requests of `methods` with an error, others with an empty listing."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            failed = self.command in methods
            body = f"<Error><Code>{code}</Code></Error>" if failed else "<ListBucketResult></ListBucketResult>"
            self.send_response(status if failed else 200)
            self.send_header("content-length", str(len(body)))
            self.send_header("etag", '"1"')
            self.end_headers()
            self.wfile.write(body.encode())

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
        (403, "AccessDenied", f"^s3://accessdenied/lake: {DENIED} s3:ListBucket here$"),
        (403, "InvalidAccessKeyId", "does not know these credentials; check AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "does not know these credentials"),
        (400, "ExpiredToken", "AWS_SESSION_TOKEN"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region; set AWS_REGION"),
        (418, "Teapot", "^s3://teapot/lake: Generic S3 error: .*418"),
    ],
)
def test_what_a_store_refuses_is_said_with_what_to_change(status: int, code: str, told: str) -> None:
    with answering(status, code, ("GET",)) as endpoint, s3.variables(s3.environment(endpoint)):
        bucket = Bucket(f"s3://{code.lower()}/lake")  # another for each: clients are kept
        with pytest.raises(StorageError, match=told):
            bucket.check()


def test_what_may_not_be_written_or_removed_is_said_with_the_permission_that_lacks() -> None:
    with (
        answering(403, "AccessDenied", ("PUT", "POST", "DELETE")) as endpoint,
        s3.variables(s3.environment(endpoint)),
    ):
        bucket = Bucket("s3://read-only/lake")
        bucket.check()
        with pytest.raises(StorageError, match=f"^s3://read-only/lake/k: {DENIED} s3:PutObject here$"):
            bucket.put("k", b"", None)
        with pytest.raises(StorageError, match=f"^s3://read-only/lake/k: {DENIED} s3:DeleteObject here$"):
            bucket.delete(["k"])
        bucket.delete_folder(".staging/k")


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
        bucket.check()
