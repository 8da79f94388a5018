"""The storage of a lake's files, a folder or an S3 bucket: list, read, create, replace and delete.

Paths are relative to the lake's root, with slashes. Not here: Delta tables, which deltalake and the engine read and write by
URI, and the meaning of any file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO, RawIOBase
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from obstore import ReadableFile
    from obstore.store import S3Store

LakeRoot = Path | str  # a folder, or s3://bucket/prefix
# Attempts of a write that gets no answer: 3 s in all when connections are reset, a minute when they time out.
ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.05
AT_A_TIME = 16  # concurrent requests or file syncs; each takes 4 to 50 ms, most of it waiting
ORPHAN_SECONDS = 24 * 3600.0  # no writer takes this long between its temporary file and the rename

T = TypeVar("T")
R = TypeVar("R")


class StorageError(Exception):
    """The lake's bucket or disk does not exist, cannot be reached, is full or denies access. The message says what to change."""


class NoAnswerError(StorageError):
    """The store did not answer a request. The request may have been executed all the same."""


class NoSpaceError(StorageError):
    """A disk is full. The message says what to do."""


class ChangedError(Exception):
    """A file has changed since it was read: another writer replaced it."""


@dataclass(frozen=True)
class File:
    """A file of the lake.

    `path`: path under the lake's root.
    `size`: bytes.
    `changed`: time of the last write, in seconds of the epoch.
    `version_tag`: identity of the content: the ETag, or inode and modification time.
    """

    path: str
    size: int
    changed: float
    version_tag: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


class Storage(Protocol):
    """The files of one lake."""

    def uri(self, path: str = "") -> str:
        """The URI of `path`, as the engine and people use it."""

    def walk(self, folder: str) -> Iterator[File]:
        """Every file below `folder`, in any order. No files if the folder does not exist."""

    def source(self, path: str) -> str | BytesIO:
        """The file in a form that pyarrow can read."""

    def ranged(self, path: str) -> Any:
        """The file in a form of which pyarrow reads only the parts that it needs, for large files. Raises FileNotFoundError."""

    def create(self, path: str, content: bytes) -> None:
        """Write a new file atomically. It is durable when this returns: it survives a power cut.

        Raises FileExistsError, and changes nothing, if the file exists.
        """

    def read(self, path: str) -> bytes:
        """A file's content. Raises FileNotFoundError."""

    def compared(self, folder: str) -> Mapping[str, File]:
        """The files below `folder` by path, as the later `take` expects them; empty where `take` does not compare."""

    def take(self, origin: Storage, source: str, target: str, expected: File | None) -> None:
        """Move the file `source` of the storage `origin` to `target`, atomically, replacing the file there.

        `expected`: the file at `target` when the tables were compared, None if there was none. A bucket raises ChangedError,
        and writes nothing, if `target` has changed since. A folder does not compare: its lock cannot be lost.
        """

    def delete(self, files: Iterable[str]) -> None:
        """Remove `files`; those that no longer exist are skipped."""

    def delete_folder(self, folder: str) -> None:
        """Remove everything below `folder`, as far as permissions allow."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`function` of each item, in order; concurrently where each call waits for the network."""

    def check(self, folders: Iterable[str]) -> None:
        """Raise StorageError if the lake cannot be reached, or if one of `folders` may not be listed.

        The root itself is not listed: where permissions are granted by path nobody may list it.
        """


def under(root: LakeRoot, path: str) -> LakeRoot:
    """The path or URI of `path` under the lake's root `root`."""
    return root / path if isinstance(root, Path) else f"{root}/{path}"


@lru_cache(maxsize=8)
def storage_at(root: LakeRoot) -> Storage:
    """The storage of the lake at `root`."""
    return Folder(root) if isinstance(root, Path) else Bucket(root)


class Folder:
    """A lake in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def uri(self, path: str = "") -> str:
        return str(self._root / path)

    def walk(self, folder: str) -> Iterator[File]:
        waiting = [folder]
        while waiting:
            within = waiting.pop()
            try:
                entries = list(os.scandir(f"{self._root}/{within}"))
            except FileNotFoundError:  # not created yet, or removed meanwhile
                continue
            for entry in entries:
                path = f"{within}/{entry.name}" if within else entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                    continue
                with contextlib.suppress(FileNotFoundError):  # replaced or removed meanwhile
                    stat = entry.stat()
                    yield File(path, stat.st_size, stat.st_mtime, f"{stat.st_ino}-{stat.st_mtime_ns}")

    def source(self, path: str) -> str:
        return str(self._root / path)

    def ranged(self, path: str) -> str:
        return self.source(path)

    def create(self, path: str, content: bytes) -> None:
        target = self._root / path
        with named(str(target)):
            new = list(takewhile(lambda folder: not folder.exists(), target.parents))
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise FileExistsError(str(target))
            # The temporary name is unique: another writer may be writing the same file.
            hidden = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
            try:
                hidden.write_bytes(content)
                _sync(hidden)
                os.replace(hidden, target)
            except OSError:
                hidden.unlink(missing_ok=True)
                raise
            for folder in {target.parent, *(made.parent for made in new)}:
                _sync(folder)
            _remove_orphans(target)

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def compared(self, folder: str) -> Mapping[str, File]:
        return {}

    def take(self, origin: Storage, source: str, target: str, expected: File | None) -> None:
        with named(self.uri(target)):
            (self._root / target).parent.mkdir(parents=True, exist_ok=True)
            os.replace(origin.uri(source), self._root / target)

    def delete(self, files: Iterable[str]) -> None:
        for path in files:
            (self._root / path).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        shutil.rmtree(self._root / folder, ignore_errors=True)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        return map(function, items)

    def check(self, folders: Iterable[str]) -> None:
        return None


def _sync(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def _remove_orphans(written: Path) -> None:
    """Remove temporary files of killed writers beside `written`: those that are more than ORPHAN_SECONDS older than it.

    File times are compared with each other, never with this machine's clock. Younger files may belong to a living writer.
    """
    now = written.stat().st_mtime
    for hidden in written.parent.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # renamed by its writer, or removed by another process
            if now - hidden.stat().st_mtime > ORPHAN_SECONDS:
                hidden.unlink()


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
                if expected_tag is None or _codes("NoSuchBucket")[0] in str(error):
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
            advice = _advice(error)
            if advice is None and isinstance(error, FileNotFoundError):
                raise
            text = (advice or _first_line(error)).replace("BUCKET", bucket).replace("ACTION", action)
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


def _advice(error: Exception) -> str | None:
    """What an error of the store means and what to change; None for an error without an entry in ADVICE."""
    text = f"{type(error).__name__}: {error}"
    return next((advice for signs, advice in ADVICE if any(sign in text for sign in signs)), None)


def _codes(*names: str) -> tuple[str, ...]:
    """S3's error codes with their XML tags: a bucket or a file may have the same name as a code."""
    return tuple(f"<Code>{name}</Code>" for name in names)


NO_ANSWER = "error sending request"

# Signs of an error (S3's codes and status, the client's error class and wording) and the advice, most specific first.
ADVICE = (
    (_codes("NoSuchBucket"), "there is no bucket BUCKET; create it, or set lake_root to one that exists"),
    (
        (
            *_codes("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
            "UnauthenticatedError: ",
        ),
        "the store rejects these credentials; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
    ),
    (
        (*_codes("PermanentRedirect", "AuthorizationHeaderMalformed"), "Received redirect without LOCATION"),
        "the bucket is in another region; set AWS_REGION",
    ),
    (
        ("PermissionDeniedError: ", "status code: 403 Forbidden", *_codes("AccessDenied")),
        "access denied; the policy of these credentials must allow ACTION here",
    ),
    (
        ("latest/api/token", "latest/meta-data", "Missing SecretAccessKey", "Missing AccessKeyId"),
        "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run on a machine with a role",
    ),
    (
        (
            *("status code: 500 Internal Server Error", "status code: 503 Service Unavailable"),
            *_codes("InternalError", "SlowDown"),
        ),
        "the store failed after every retry (500 or 503); nothing is half-published: run the same again later",
    ),
    (("BadScheme",), "AWS_ENDPOINT_URL is http and not https; set AWS_ALLOW_HTTP=true if that is intended"),
    ((NO_ANSWER,), "no answer; check AWS_ENDPOINT_URL, AWS_REGION and the network"),
)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:300]


# The error classes of libraries that report failures of a disk or a store, by module. Only loaded modules are looked up: a
# library that is not loaded has raised nothing.
LIBRARIES = (
    ("obstore.exceptions", "BaseError"),
    ("deltalake.exceptions", "DeltaError"),
    ("grpc", "RpcError"),
    ("pyspark.errors", "PySparkException"),
    ("botocore.exceptions", "ClientError"),
)
# Errors that wrap the error of another library, which has the cause.
WRAPPERS = (("sqlalchemy.exc", "DBAPIError"), ("dagster", "DagsterError"))
# The error of a user's function on the engine: its text tells nothing about the lake's store, whatever words it contains.
OF_FUNCTIONS = ("pyspark.errors", "PythonException")

# The wordings of libraries and engines that have no error codes.
FULL = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")
OF_A_STORE = r"Generic S3 error|Error performing (?:[A-Z]+ https?://|list request)|awssdk\.services\.s3|fs\.s3a\."
UNABLE = (
    r"\b500 Internal Server Error|\b503 Service Unavailable|<Code>(?:InternalError|SlowDown)</Code>|Status Code: 50[03]\b"
    rf"|{NO_ANSWER}|Connection reset|os error 104\b|error decoding response body|connection closed before message"
)
STORE_IS_UNABLE = re.compile(f"(?:{OF_A_STORE}).*?(?:{UNABLE})", re.DOTALL)
CODES_OF_S3 = ("InternalError", "SlowDown", "ServiceUnavailable")


def error_types() -> tuple[type[Exception], ...]:
    """The classes of errors that may report a failure of the lake's disk or store."""
    return (StorageError, OSError, sqlite3.Error, *_loaded(*LIBRARIES, *WRAPPERS))


def storage_error(what: str, error: BaseException) -> StorageError | None:
    """The StorageError to raise for `error`, which another library raised at the lake's files or store.

    `what`: what failed, the start of the message.
    None if the cause is neither a full disk nor a failing store. The class and code of the error decide; its text does so only
    for libraries without codes.
    """
    while isinstance(error, _loaded(*WRAPPERS)):
        inner = getattr(error, "orig", None) or error.__cause__
        if inner is None:
            return None
        error = inner
    if isinstance(error, StorageError):
        return error
    if _is_full(error):
        return NoSpaceError(
            f"{what}: no space is left on the disk, or it cannot be written; nothing is half-published: free some space, "
            "then run the same again"
        )
    if _is_unable(error):
        return StorageError(
            f"{what}: the store failed after every retry; nothing is half-published: run the same again when it answers"
        )
    return None


def _is_full(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        # The low byte is the primary result code; the rest makes it an extended one.
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(sign in _library_text(error) for sign in FULL)


def _is_unable(error: BaseException) -> bool:
    if isinstance(error, _loaded(("botocore.exceptions", "ClientError"))):
        return getattr(error, "response", {}).get("Error", {}).get("Code") in CODES_OF_S3
    return STORE_IS_UNABLE.search(_library_text(error)) is not None


def _library_text(error: BaseException) -> str:
    """The text of an error of a library that has no codes for failures of a store; empty for any other error."""
    if isinstance(error, _loaded(OF_FUNCTIONS)):
        return ""
    if isinstance(error, _loaded(("grpc", "RpcError"))) and hasattr(error, "details"):
        return str(error.details())
    # deltalake and pyarrow raise an OSError without an error number.
    is_known = isinstance(error, _loaded(*LIBRARIES)) or (isinstance(error, OSError) and error.errno is None)
    return str(error) if is_known else ""


def _loaded(*names: tuple[str, str]) -> tuple[type[Exception], ...]:
    """The classes of `names` (module, class) whose modules are loaded."""
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Raise StorageError for errors of deltalake and the operating system: a full disk, a failing store, a commit conflict.

    `what`: what was worked on, the start of the message.
    """
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError as error:
        raise StorageError(
            f"{what}: a commit conflicts with another one, or with itself after its answer was lost ({_first_line(error)}); "
            "nothing is half-published: run the same again"
        ) from error
    except (DeltaError, OSError) as error:
        failure = storage_error(what, error)
        if failure is None:
            raise
        raise failure from error


# Clients are cached because they keep their connections. Their retries are bounded: the default of ten takes minutes.
@lru_cache(maxsize=8)
def _client(root: str) -> S3Store:
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
