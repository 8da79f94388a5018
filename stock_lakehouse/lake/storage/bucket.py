"""A lake in an S3 bucket: conditional writes, bounded retries, and rights by path."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import lru_cache
from io import BytesIO, RawIOBase
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake.storage.messages import DENIAL, NO_ANSWER, advice_for, codes, denial, first_line
from stock_lakehouse.lake.storage.protocol import (
    ChangedError,
    DeniedError,
    File,
    NoAnswerError,
    R,
    Storage,
    StorageError,
    T,
)
from stock_lakehouse.lake_options import EXAMPLE_BUCKET

if TYPE_CHECKING:
    from obstore import ReadableFile
    from obstore.store import S3Store

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.05
AT_A_TIME = 16  # concurrent requests; each takes 4 to 50 ms, most of it waiting


class Bucket:
    """A lake in an S3 bucket, or in a compatible store with conditional writes.

    Credentials, region and endpoint come from the AWS_* variables, as for deltalake and Sail: all three use the library
    `object_store`.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    @property
    def _store(self) -> S3Store:
        return _client(self._root)

    def uri(self, path: str = "") -> str:
        return f"{self._root}/{path}".rstrip("/")

    def walk(self, folder: str) -> Iterator[File]:
        import obstore

        with self._named(folder, "s3:ListBucket"):
            for chunk in obstore.list(self._store, folder, chunk_size=1000):
                for entry in chunk:
                    yield File(entry["path"], entry["size"], entry["last_modified"].timestamp(), str(entry["e_tag"]))

    def walk_partitions(self, folder: str, levels: int, name: str) -> Iterator[File]:
        depth = folder.count("/") + levels + 1
        return (file for file in self.walk(folder) if file.name == name and file.path.count("/") == depth)

    def present(self, folder: str, paths: Iterable[str]) -> Mapping[str, File]:
        wanted = {*paths}
        return {file.path: file for file in self.walk(folder) if file.path in wanted}

    def source(self, path: str) -> BytesIO:
        return BytesIO(self.read(path))

    def ranged(self, path: str) -> Any:
        import obstore

        with self._named(path, "s3:GetObject"):
            reader = obstore.open_reader(self._store, path)
        return _Ranged(reader, lambda: self._named(path, "s3:GetObject"))

    def read(self, path: str) -> bytes:
        return self.look(path)[0]

    def look(self, path: str) -> tuple[bytes, str]:
        """A file's content and version tag. Raises FileNotFoundError."""
        import obstore

        with self._named(path, "s3:GetObject"):
            answer = obstore.get(self._store, path)
            return bytes(answer.bytes()), str(answer.meta["e_tag"])

    def put(self, path: str, content: bytes, expected_tag: str | None) -> str:
        """Write a file on condition, and return its new version tag.

        `expected_tag`: the version tag that the present file must have; None: there must be no file. The store checks the
        condition. Raises ChangedError, and writes nothing, if it does not hold. That also happens when the answer to a write
        was lost and its retry meets the file that the first attempt wrote; the caller has to tell the two apart.
        """
        return _until_answered(lambda: self._put(path, content, expected_tag))

    def _put(self, path: str, content: bytes, expected_tag: str | None) -> str:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._named(path, "s3:PutObject"):
            try:
                answer = obstore.put(
                    self._store,
                    path,
                    content,
                    mode="create" if expected_tag is None else {"e_tag": expected_tag},
                    use_multipart=False,
                )
            except (AlreadyExistsError, PreconditionError):
                raise ChangedError(self.uri(path)) from None
            except FileNotFoundError as error:
                if expected_tag is None or codes("NoSuchBucket")[0] in str(error):
                    raise
                raise ChangedError(self.uri(path)) from None
        return str(answer["e_tag"])

    def create(self, path: str, content: bytes) -> None:
        try:
            self.put(path, content, None)
        except ChangedError:
            if not self._holds(path, content):
                raise FileExistsError(self.uri(path)) from None

    def compared(self, folder: str) -> Mapping[str, File]:
        return {file.path: file for file in self.walk(folder)}

    def take(self, origin: Storage, source: str, target: str, expected: File | None) -> None:
        content = origin.read(source)
        try:
            self.put(target, content, expected.version_tag if expected else None)
        except ChangedError:
            if not self._holds(target, content):
                raise

    def _holds(self, path: str, content: bytes) -> bool:
        """Whether `path` has `content` already: the retry of a write whose answer was lost finds its own file."""
        try:
            return self.read(path) == content
        except FileNotFoundError:
            return False

    def delete(self, files: Iterable[str]) -> None:
        import obstore

        paths = list(files)

        def delete() -> None:
            with self._named(paths[0] if paths else "", "s3:DeleteObject"):
                obstore.delete(self._store, paths)

        _until_answered(delete)

    def delete_folder(self, folder: str) -> None:
        try:
            self.delete([file.path for file in self.walk(folder)])
        except StorageError:
            return  # a policy without s3:DeleteObject keeps staged frames; a lifecycle rule may remove them

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            yield from pool.map(function, items)

    def check(self, folders: Iterable[str]) -> None:
        for _ in self.map(lambda folder: next(self.walk(folder), None), folders):
            pass

    @contextlib.contextmanager
    def _named(self, path: str, action: str) -> Iterator[None]:
        """Turn the store's errors during `action` of S3 into a StorageError that says what to change."""
        from obstore.exceptions import BaseError

        bucket = self._root.split("/")[2]
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            advice = advice_for(error)
            if advice is None and isinstance(error, FileNotFoundError):
                raise
            if advice == DENIAL:
                raise DeniedError(f"{self.uri(path)}: {denial(action, str(error))}") from None
            text = (advice or first_line(error)).replace("BUCKET", bucket)
            kind = NoAnswerError if NO_ANSWER in str(error) else StorageError
            raise kind(f"{self.uri(path)}: {text}") from None


class _Ranged(RawIOBase):
    """A file in a bucket that pyarrow reads in ranges. obstore's own reader has no `closed`, which pyarrow asks for."""

    def __init__(self, reader: ReadableFile, named: Callable[[], AbstractContextManager[None]]) -> None:
        self._reader = reader
        self._named = named

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def read(self, size: int = -1) -> bytes:
        with self._named():
            return bytes(self._reader.read(None if size < 0 else size))


def _until_answered(request: Callable[[], R]) -> R:
    """The result of `request`, which is sent up to ATTEMPTS times. Raises NoAnswerError after the last one.

    The client itself does not retry a write whose connection broke, because it cannot know whether the write took place.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return request()
        except NoAnswerError:
            time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
    return request()


def refuse_example(root: str) -> None:
    """Raise StorageError if `root` is the place that stands in the first settings of a lake on AWS until its stack is there."""
    if root.startswith(EXAMPLE_BUCKET):
        raise StorageError(
            f"lake_root: {root} is the example that `stock-lakehouse init --aws` wrote; set it to the output LakeRoot of the "
            "stack that `aws cloudformation deploy` made"
        )


# Clients are cached because they keep their connections. Their retries are bounded: the default of ten takes minutes.
@lru_cache(maxsize=8)
def _client(root: str) -> S3Store:
    refuse_example(root)
    from datetime import timedelta

    from obstore.store import S3Store

    options: dict[str, Any] = {
        "retry_config": {"max_retries": 5, "retry_timeout": timedelta(seconds=60)},
        # Options given here replace those of the environment.
        "client_options": {
            "connect_timeout": "10s",
            "timeout": "60s",
            "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1"),
        },
    }
    return S3Store.from_url(root, **options)
