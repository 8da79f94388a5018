"""Where a lake's files are: a folder, or a bucket of S3. What a table needs of either: list, read, create, replace, delete.

Paths are under the lake's root, with slashes. Not here: Delta tables, which deltalake and the engine read and write by URI,
and what any file means.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from obstore.store import S3Store

LakeRoot = Path | str  # a folder, or s3://bucket/prefix
ATTEMPTS = 6  # of a write that is not answered, within 3 s when connections are reset and a minute when they time out
FIRST_PAUSE_SECONDS = 0.05
AT_A_TIME = 16  # requests: one takes 20 to 50 ms, most of it waiting

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
        """Write a new file; it appears whole. Raises FileExistsError and changes nothing where there is one."""

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

    def check(self) -> None:
        """Raises StorageError when the lake cannot be reached."""


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
            target.parent.mkdir(parents=True, exist_ok=True)
            for left_by_a_killed_run in target.parent.glob(".*.tmp"):
                left_by_a_killed_run.unlink()
            if target.exists():
                raise FileExistsError(str(target))
            hidden = target.with_name(f".{target.name}.tmp")
            hidden.write_bytes(content)
            os.replace(hidden, target)

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

    def check(self) -> None:
        return None


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
                if there is None or "NoSuchBucket" in str(error):
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

    def check(self) -> None:
        next(self.walk(""), None)

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
    text = f"{type(error).__name__} {error}"
    return next((told for signs, told in TOLD if any(sign in text for sign in signs)), None)


NO_ANSWER = "error sending request"

# By the codes of S3, the client's class of error and its words, the most particular first.
TOLD = (
    (("NoSuchBucket",), "there is no bucket BUCKET; create it, or set lake_root to one that is there"),
    (
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "UnauthenticatedError"),
        "the store does not know these credentials; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
    ),
    (("PermanentRedirect", "AuthorizationHeaderMalformed"), "the bucket is in another region; set AWS_REGION"),
    (
        ("PermissionDeniedError", "403 Forbidden", "AccessDenied"),
        "access denied; the policy of these credentials must allow ACTION here",
    ),
    (
        ("latest/api/token", "latest/meta-data", "Missing SecretAccessKey", "Missing AccessKeyId"),
        "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role gives them",
    ),
    (
        ("500 Internal Server Error", "503 Service Unavailable", "SlowDown", "InternalError"),
        "the store answers that it cannot, after every retry; nothing is half-published, run the same again when it can",
    ),
    (("BadScheme",), "AWS_ENDPOINT_URL is http and not https; set AWS_ALLOW_HTTP=true if that is meant"),
    ((NO_ANSWER,), "no answer; check AWS_ENDPOINT_URL, AWS_REGION and the network"),
)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:300]


# How the operating system, engines, deltalake and SQLite say it.
FULL = (
    "No space left on device",
    "os error 28",
    "Disk quota exceeded",
    "os error 122",
    "disk is full",
    "disk I/O error",
)
UNABLE = (
    *("500 Internal Server Error", "503 Service Unavailable", "InternalError", "SlowDown"),
    *(
        NO_ANSWER,
        "Connection reset",
        "os error 104",
        "error decoding response body",
        "connection closed before message",
    ),
)


def storage_error(what: str, text: str) -> StorageError | None:
    """The error to raise for what somebody else said of a file or request of the lake while doing `what`; None if neither a full
    disk nor a store that fails is the cause."""
    if any(sign in text for sign in FULL):
        return NoSpaceError(
            f"{what}: no space is left on the disk, or it cannot be written; nothing is half-published: free some, then run "
            "the same again"
        )
    if any(sign in text for sign in UNABLE):
        return StorageError(
            f"{what}: the store did not do what was asked, after every retry; nothing is half-published: run the same "
            "again when it answers"
        )
    return None


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
        told = storage_error(what, str(error))
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
