"""From the errors of libraries to a StorageError that says what to do.

The class and code of an error decide; its text does so only for libraries without codes.
"""

from __future__ import annotations

import contextlib
import errno
import re
import sqlite3
import sys
from collections.abc import Iterator
from urllib.parse import unquote

from stock_lakehouse.aws import missing_right
from stock_lakehouse.lake.storage.protocol import DeniedError, NoSpaceError, StorageError


def advice_for(error: Exception) -> str | None:
    """What an error of the store means and what to change; None for an error without an entry in ADVICE."""
    return advice_in(f"{type(error).__name__}: {error}")


def advice_in(text: str) -> str | None:
    """`advice_for` an error of this text."""
    return next((advice for signs, advice in ADVICE if any(sign in text for sign in signs)), None)


def codes(*names: str) -> tuple[str, ...]:
    """S3's error codes with their XML tags: a bucket or a file may have the same name as a code."""
    return tuple(f"<Code>{name}</Code>" for name in names)


NO_ANSWER = "error sending request"
DENIAL = "access denied; the policy of these credentials must allow ACTION here"
REJECTION = "the store rejects these credentials; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
# S3 answers a request for an object that is not there with 404 only to who may list it.
ALSO_LISTED = "; without s3:ListBucket S3 also denies what does not exist"

# Signs of an error (S3's codes and status, the client's error class and wording) and the advice, most specific first.
ADVICE = (
    (codes("NoSuchBucket"), "there is no bucket BUCKET; create it, or set lake_root to one that exists"),
    (
        (
            *codes("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
            "UnauthenticatedError: ",
        ),
        REJECTION,
    ),
    (
        (*codes("PermanentRedirect", "AuthorizationHeaderMalformed"), "Received redirect without LOCATION"),
        "the bucket is in another region; set AWS_REGION",
    ),
    (
        # The last: of one of several objects that a request deletes.
        (
            "PermissionDeniedError: ",
            "status code: 403 Forbidden",
            *codes("AccessDenied"),
            "(code: AccessDenied)",
        ),
        DENIAL,
    ),
    (
        ("latest/api/token", "latest/meta-data", "Missing SecretAccessKey", "Missing AccessKeyId"),
        "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run on a machine with a role",
    ),
    (
        (
            *("status code: 500 Internal Server Error", "status code: 503 Service Unavailable"),
            *codes("InternalError", "SlowDown"),
        ),
        "the store failed after every retry (500 or 503); nothing is half-published: run the same again later",
    ),
    (("BadScheme",), "AWS_ENDPOINT_URL is http and not https; set AWS_ALLOW_HTTP=true if that is intended"),
    ((NO_ANSWER,), "no answer; check AWS_ENDPOINT_URL, AWS_REGION and the network"),
)


def denial(action: str, said: str) -> str:
    """What the denial of `action` of S3 means and what to change. `said`: S3's words, which may name another right, of a key."""
    right = missing_right(said) or action
    return DENIAL.replace("ACTION", right) + (ALSO_LISTED if right == READ else "")


def first_line(error: Exception) -> str:
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
STORE_DENIES = re.compile(
    rf"(?:{OF_A_STORE}).*?(?:403 Forbidden|Status Code: 403\b|<Code>(?:AccessDenied|ExpiredToken)</Code>)", re.DOTALL
)
DECORATION = re.compile(r"\x1b\[[0-9;]*m|↳")
READ = "s3:GetObject"
# A request as the client of S3 names it in its errors, and the right that it needs.
REQUEST = re.compile(r"Error performing ([A-Z]+) https?://[^/\s]+/([^\s?]*)(\S*)")
PREFIX = re.compile(r"[?&]prefix=([^&]*)")
RIGHTS = {"GET": READ, "HEAD": READ, "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}
CODES_OF_S3 = ("InternalError", "SlowDown", "ServiceUnavailable")


def error_types() -> tuple[type[Exception], ...]:
    """The classes of errors that may report a failure of the lake's disk or store."""
    return (StorageError, OSError, sqlite3.Error, *_loaded(*LIBRARIES, *WRAPPERS))


def storage_error(what: str, error: BaseException) -> StorageError | None:
    """The StorageError to raise for `error`, which another library raised at the lake's files or store.

    `what`: what failed, the start of the message.
    None if the cause is neither a full disk nor a store that fails or denies access. The class and code of the error decide; its
    text does so only for libraries without codes.
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
    # deltalake colours its errors, and breaks their lines.
    text = " ".join(DECORATION.sub(" ", _library_text(error)).split())
    return _denied(what, text) if STORE_DENIES.search(text) else None


def _denied(what: str, text: str) -> StorageError:
    """The error of a request that the store denied, by the text of a library."""
    if (advice_in(text) or DENIAL) != DENIAL:
        return StorageError(f"{what}: {advice_in(text)}")
    request = REQUEST.search(text)
    if request is None:
        return DeniedError(f"{what}: {DENIAL.replace('ACTION', 'the request')}: {text[:300]}")
    method, path, query = request.groups()
    action = RIGHTS.get(method, "s3:PutObject")
    if "list-type" in query:
        action = "s3:ListBucket"
        listed = PREFIX.search(query)
        path = f"{path}/{unquote(listed[1])}" if listed else path
    elif method == "POST" and "delete" in query:
        action = "s3:DeleteObject"
    return DeniedError(f"{what}: {path}: {denial(action, text)}. Nothing is half-published")


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
            f"{what}: a commit conflicts with another one, or with itself after its answer was lost ({first_line(error)}); "
            "nothing is half-published: run the same again"
        ) from error
    except (DeltaError, OSError) as error:
        failure = storage_error(what, error)
        if failure is None:
            raise
        raise failure from None  # Dagster shows the innermost cause, and that one does not say what to do
