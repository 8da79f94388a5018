"""Where a lake's files are: a folder, or a bucket of S3. What a table needs of either: list, read, create, replace, delete.

Paths are under the lake's root, with slashes. Not here: Delta tables, which deltalake and the engine read and write by URI,
and what any file means.
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
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from obstore.store import S3Store

LakeRoot = Path | str  # a folder, or s3://bucket/prefix
ATTEMPTS = 6  # of a write that is not answered, within 3 s when connections are reset and a minute when they time out
FIRST_PAUSE_SECONDS = 0.05
AT_A_TIME = 16  # requests or synced files: one takes 4 to 50 ms, most of it waiting
ORPHAN_SECONDS = 24 * 3600.0  # no writer takes so long from its temporary file to the rename

T = TypeVar("T")
R = TypeVar("R")


class StorageError(Exception):
    """The lake's bucket or disk is not there, cannot be reached, is full or does not allow something; the message says what to
    change."""


class NoAnswerError(StorageError):
    """The store did not answer a request, which may have taken place all the same."""


class NoSpaceError(StorageError):
    """A disk is full; the message says what to do."""


class ChangedError(Exception):
    """A file is not what it was when it was looked at: another writer was here."""


@dataclass(frozen=True)
class File:
    """A file: its path under the lake's root, bytes, when it was written (seconds of the epoch), and a mark that
    another content has not."""

    path: str
    size: int
    changed: float
    mark: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


class Storage(Protocol):
    """The files of one lake."""

    def uri(self, path: str = "") -> str:
        """What the engine and people call the place `path`."""

    def walk(self, folder: str) -> Iterator[File]:
        """Every file below `folder`, in any order; none if there is no such folder."""

    def source(self, path: str) -> str | BytesIO:
        """What pyarrow reads the file from."""

    def create(self, path: str, content: bytes) -> None:
        """Write a new file; it appears whole, and outlasts a power cut once this returns. Raises FileExistsError and changes
        nothing where there is one."""

    def read(self, path: str) -> bytes:
        """A file's content. Raises FileNotFoundError."""

    def compared(self, folder: str) -> Mapping[str, File]:
        """The files below `folder` by path, for `take`; none where `take` does not ask what was there."""

    def take(self, beside: Storage, source: str, target: str, there: File | None) -> None:
        """Put the file `source` of `beside` in place of `target`, in one step. `there` is what was at `target` when it was
        compared: a bucket raises ChangedError and takes nothing when something else is there now. In a folder the lock
        suffices, which cannot be lost.
        """

    def delete(self, files: Iterable[str]) -> None:
        """Remove files, of which some may be gone."""

    def delete_folder(self, folder: str) -> None:
        """Remove everything below `folder`, as far as that is allowed."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`function` of each item, in order; many at a time where each waits for a network."""

    def check(self, folders: Iterable[str]) -> None:
        """Raises StorageError when the lake cannot be reached, or one of `folders` may not be listed.

        The root is not asked: where rights are by path nobody may list it.
        """


def under(root: LakeRoot, path: str) -> LakeRoot:
    """The place `path` of the lake at `root`."""
    return root / path if isinstance(root, Path) else f"{root}/{path}"


@lru_cache(maxsize=8)
def storage_at(root: LakeRoot) -> Storage:
    """The files of the lake at `root`."""
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
            except FileNotFoundError:  # none yet, or removed since
                continue
            for entry in entries:
                path = f"{within}/{entry.name}" if within else entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                    continue
                with contextlib.suppress(FileNotFoundError):  # replaced or removed since
                    facts = entry.stat()
                    yield File(path, facts.st_size, facts.st_mtime, f"{facts.st_ino}-{facts.st_mtime_ns}")

    def source(self, path: str) -> str:
        return str(self._root / path)

    def create(self, path: str, content: bytes) -> None:
        target = self._root / path
        with named(str(target)):
            new = list(takewhile(lambda folder: not folder.exists(), target.parents))
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise FileExistsError(str(target))
            # Of its own name: another writer of the folder may be at the same file.
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

    def take(self, beside: Storage, source: str, target: str, there: File | None) -> None:
        with named(self.uri(target)):
            (self._root / target).parent.mkdir(parents=True, exist_ok=True)
            os.replace(beside.uri(source), self._root / target)

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
    """Have the content of a file, or the names in a folder, written to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot do it for a folder
            raise
    finally:
        os.close(descriptor)


def _remove_orphans(written: Path) -> None:
    """Remove the temporary files beside `written` that killed writers left: those more than ORPHAN_SECONDS older than it.

    File times are compared with each other, never with this machine's clock. Younger ones may be another writer's.
    """
    now = written.stat().st_mtime
    for hidden in written.parent.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # its writer renamed it, or another removed it
            if now - hidden.stat().st_mtime > ORPHAN_SECONDS:
                hidden.unlink()


class Bucket:
    """A lake in a bucket of S3, or of a store that speaks S3 with conditional writes. Credentials, region and endpoint
    come from the AWS_* variables, as those of deltalake and Sail do: all three are the `object_store` library."""

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
                for one in chunk:
                    yield File(one["path"], one["size"], one["last_modified"].timestamp(), str(one["e_tag"]))

    def source(self, path: str) -> BytesIO:
        return BytesIO(self.read(path))

    def read(self, path: str) -> bytes:
        return self.look(path)[0]

    def look(self, path: str) -> tuple[bytes, str]:
        """A file's content and mark. Raises FileNotFoundError."""
        import obstore

        with self._named(path, "s3:GetObject"):
            answer = obstore.get(self._store, path)
            return bytes(answer.bytes()), str(answer.meta["e_tag"])

    def put(self, path: str, content: bytes, there: str | None) -> str:
        """Write a file where there is none (`there` None), or where one of the mark `there` is; give the new one's mark.

        Raises ChangedError and writes nothing when it is otherwise: the store itself compares. That a write whose answer was lost
        meets itself when it is sent again is for the caller to see.
        """
        return _until_answered(lambda: self._put(path, content, there))

    def _put(self, path: str, content: bytes, there: str | None) -> str:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._named(path, "s3:PutObject"):
            try:
                answer = obstore.put(
                    self._store,
                    path,
                    content,
                    mode="create" if there is None else {"e_tag": there},
                    use_multipart=False,
                )
            except (AlreadyExistsError, PreconditionError):
                raise ChangedError(self.uri(path)) from None
            except FileNotFoundError as error:
                if there is None or _codes("NoSuchBucket")[0] in str(error):
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

    def take(self, beside: Storage, source: str, target: str, there: File | None) -> None:
        content = beside.read(source)
        try:
            self.put(target, content, there.mark if there else None)
        except ChangedError:
            if not self._holds(target, content):
                raise

    def _holds(self, path: str, content: bytes) -> bool:
        """Whether `content` is there already: a request whose answer was lost is sent again, and meets what it wrote."""
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
            self.delete([one.path for one in self.walk(folder)])
        except StorageError:
            return  # staged frames: a policy without s3:DeleteObject keeps them, a lifecycle rule may remove them

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            yield from pool.map(function, items)

    def check(self, folders: Iterable[str]) -> None:
        for _ in self.map(lambda folder: next(self.walk(folder), None), folders):
            pass

    @contextlib.contextmanager
    def _named(self, path: str, action: str) -> Iterator[None]:
        """Turn the store's errors at an action of S3 into a StorageError that says what to change."""
        from obstore.exceptions import BaseError

        bucket = self._root.split("/")[2]
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            told = _told(error)
            if told is None and isinstance(error, FileNotFoundError):
                raise
            text = (told or _first_line(error)).replace("BUCKET", bucket).replace("ACTION", action)
            kind = NoAnswerError if NO_ANSWER in str(error) else StorageError
            raise kind(f"{self.uri(path)}: {text}") from None


def _until_answered(ask: Callable[[], R]) -> R:
    """What `ask` gives. The client sends a write whose connection broke no second time, since it cannot know whether it took
    place; here it is sent again, ATTEMPTS times in all. Raises NoAnswerError after them."""
    for attempt in range(1, ATTEMPTS):
        try:
            return ask()
        except NoAnswerError:
            time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
    return ask()


def _told(error: Exception) -> str | None:
    """What to say of an error of the store; None if only its own words will do."""
    text = f"{type(error).__name__}: {error}"
    return next((told for signs, told in TOLD if any(sign in text for sign in signs)), None)


def _codes(*names: str) -> tuple[str, ...]:
    """Codes of S3 as its answers write them: a bucket or a file may be called like one."""
    return tuple(f"<Code>{name}</Code>" for name in names)


NO_ANSWER = "error sending request"

# By the codes and status of S3, the client's class of error and its words, the most particular first.
TOLD = (
    (_codes("NoSuchBucket"), "there is no bucket BUCKET; create it, or set lake_root to one that is there"),
    (
        (
            *_codes("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
            "UnauthenticatedError: ",
        ),
        "the store does not know these credentials; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
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
        "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role gives them",
    ),
    (
        (
            *("status code: 500 Internal Server Error", "status code: 503 Service Unavailable"),
            *_codes("InternalError", "SlowDown"),
        ),
        "the store answers that it cannot, after every retry; nothing is half-published, run the same again when it can",
    ),
    (("BadScheme",), "AWS_ENDPOINT_URL is http and not https; set AWS_ALLOW_HTTP=true if that is meant"),
    ((NO_ANSWER,), "no answer; check AWS_ENDPOINT_URL, AWS_REGION and the network"),
)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:300]


# The classes of libraries that report a disk or a store, by module. Looked up among the modules that are loaded: a library that
# is not loaded has raised nothing.
LIBRARIES = (
    ("obstore.exceptions", "BaseError"),
    ("deltalake.exceptions", "DeltaError"),
    ("grpc", "RpcError"),
    ("pyspark.errors", "PySparkException"),
    ("botocore.exceptions", "ClientError"),
)
# Their errors wrap another library's, which says what happened.
WRAPPERS = (("sqlalchemy.exc", "DBAPIError"), ("dagster", "DagsterError"))
# What a function of the user's raised on an engine: its text says nothing of the lake's store, whatever words are in it.
OF_FUNCTIONS = ("pyspark.errors", "PythonException")

# How these libraries and engines say it, who have no codes for it.
FULL = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")
OF_A_STORE = r"Generic S3 error|Error performing (?:[A-Z]+ https?://|list request)|awssdk\.services\.s3|fs\.s3a\."
UNABLE = (
    r"\b500 Internal Server Error|\b503 Service Unavailable|<Code>(?:InternalError|SlowDown)</Code>|Status Code: 50[03]\b"
    rf"|{NO_ANSWER}|Connection reset|os error 104\b|error decoding response body|connection closed before message"
)
STORE_IS_UNABLE = re.compile(f"(?:{OF_A_STORE}).*?(?:{UNABLE})", re.DOTALL)
CODES_OF_S3 = ("InternalError", "SlowDown", "ServiceUnavailable")


def error_types() -> tuple[type[Exception], ...]:
    """The classes of errors that may say that the lake's disk or store failed."""
    return (StorageError, OSError, sqlite3.Error, *_loaded(*LIBRARIES, *WRAPPERS))


def storage_error(what: str, error: BaseException) -> StorageError | None:
    """The error to raise for what another library met at the lake's files or store while doing `what`.

    None if neither a full disk nor a store that fails is the cause. That is decided by the class and code of the error; by its
    text only where it is of a library that has no codes.
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
            f"{what}: no space is left on the disk, or it cannot be written; nothing is half-published: free some, then run "
            "the same again"
        )
    if _is_unable(error):
        return StorageError(
            f"{what}: the store did not do what was asked, after every retry; nothing is half-published: run the same "
            "again when it answers"
        )
    return None


def _is_full(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        # The low byte is the kind, the rest which of its cases.
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(sign in _library_text(error) for sign in FULL)


def _is_unable(error: BaseException) -> bool:
    if isinstance(error, _loaded(("botocore.exceptions", "ClientError"))):
        return getattr(error, "response", {}).get("Error", {}).get("Code") in CODES_OF_S3
    return STORE_IS_UNABLE.search(_library_text(error)) is not None


def _library_text(error: BaseException) -> str:
    """What a library that reports the store by text alone says; nothing for any other error."""
    if isinstance(error, _loaded(OF_FUNCTIONS)):
        return ""
    if isinstance(error, _loaded(("grpc", "RpcError"))) and hasattr(error, "details"):
        return str(error.details())
    # deltalake and pyarrow raise an OSError without a number.
    is_known = isinstance(error, _loaded(*LIBRARIES)) or (isinstance(error, OSError) and error.errno is None)
    return str(error) if is_known else ""


def _loaded(*names: tuple[str, str]) -> tuple[type[Exception], ...]:
    """Those of the classes `names` whose modules are loaded."""
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Raise StorageError for what deltalake and the operating system say of a full disk, or of a store that fails."""
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError as error:
        raise StorageError(
            f"{what}: a commit met another's, or itself when its answer was lost ({_first_line(error)}); nothing is "
            "half-published: run the same again"
        ) from error
    except (DeltaError, OSError) as error:
        told = storage_error(what, error)
        if told is None:
            raise
        raise told from error


# A client keeps its connections. Its retries are bounded: ten would be minutes of silence.
@lru_cache(maxsize=8)
def _client(root: str) -> S3Store:
    from datetime import timedelta

    from obstore.store import S3Store

    options: dict[str, Any] = {
        "retry_config": {"max_retries": 5, "retry_timeout": timedelta(seconds=60)},
        # Options given replace those of the environment.
        "client_options": {
            "connect_timeout": "10s",
            "timeout": "60s",
            "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1"),
        },
    }
    return S3Store.from_url(root, **options)
