"""A gate before AWS's services on loopback: it refuses what the caller's role may not do, in AWS's words, and records the rest.

Here: the proxy, the refusals of each protocol, the record. Not here: which rights a request needs (asked.py), and the services.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from stock_lakehouse_tests.deployment.asked import (
    Account,
    Asked,
    Grant,
    Judge,
    Known,
    Policies,
    Request,
    asked_of,
    listing_of,
)

ROOT = ("test", "test", None)  # whom ministack asks for no rights
# Headers of a connection, and those of a signature that is made anew.
OF_A_HOP = ("connection", "expect", "transfer-encoding", "content-length", "host")
OF_CHUNKS = ("x-amz-decoded-content-length", "x-amz-trailer")
OF_A_SIGNATURE = ("authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256")


@dataclass(frozen=True)
class Caller:
    """Who asks: a role with its policies, in a command.

    - bucket_policies: those of the lake's bucket
    - keys: the role's own (access key, secret key, session token), for an emulator that asks for rights too; None: root's
    """

    role: str
    command: str
    policies: Policies
    bucket_policies: Policies = field(default_factory=dict)
    keys: tuple[str, str, str | None] | None = None


@dataclass
class Record:
    """What was asked for.

    - asked: how often each right was needed, by command and role
    - used: the grants that were needed, by role, in the order in which they were first needed
    - refused: what IAM refused, with command and role
    - elsewhere: requests that the gate let through and the service behind it refused, with its answer
    - seconds: that it took, with what was there before
    """

    asked: Counter[tuple[str, str, Asked]] = field(default_factory=Counter)
    used: dict[str, dict[Grant, None]] = field(default_factory=dict)
    refused: list[tuple[str, str, Asked]] = field(default_factory=list)
    elsewhere: list[tuple[str, str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def refusals(self, command: str, but: str = "$^") -> list[str]:
        """What was refused in a command, here and elsewhere, each once, without rights whose text is like the pattern `but`."""
        said = [(role, str(asked)) for name, role, asked in self.refused if name == command]
        here = [f"{role}: {asked}" for role, asked in said if not re.fullmatch(but, asked)]
        return sorted({*here, *(f"{role}: {said}" for name, role, said in self.elsewhere if name == command)})

    def add(self, other: Record) -> None:
        self.asked.update(other.asked)
        for role, found in other.used.items():
            self.used.setdefault(role, {}).update(found)
        self.refused += other.refused
        self.elsewhere += other.elsewhere


class Gate:
    """A running gate, in a process of its own: libraries in Rust may wait for an answer without letting Python's threads run.

    - upstreams: the address of each service, by the name it is signed for; "" for all others
    """

    def __init__(self, url: str, upstreams: Mapping[str, str]) -> None:
        self.url, self.upstreams = url, dict(upstreams)
        self._caller: Caller | None = None

    @contextlib.contextmanager
    def called_by(self, caller: Caller) -> Iterator[None]:
        """Requests meanwhile are those of `caller`; without one they pass, and are not recorded."""
        before, self._caller = self._caller, caller
        self._tell("caller", caller)
        try:
            yield
        finally:
            self._caller = before
            self._tell("caller", before)

    def lead(self, **upstreams: str) -> None:
        """Lead requests to these services to other addresses."""
        self.upstreams |= {name.replace("_", "-"): address for name, address in upstreams.items()}
        self._tell("upstreams", self.upstreams)

    def age(self, keys: str | None) -> None:
        """Listings give objects with keys like the pattern `keys` as a year older than they are; None: no objects."""
        self._tell("aged", keys)

    def record(self) -> Record:
        """What was asked for since the last time."""
        found: Record = self._tell("record", None)
        return found

    def _tell(self, what: str, value: Any) -> Any:
        request = urllib.request.Request(f"{self.url}{CONTROL}{what}", pickle.dumps(value), method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return pickle.loads(answer.read())


CONTROL = "/-gate-/"


@contextlib.contextmanager
def gate(account: Account, upstreams: Mapping[str, str]) -> Iterator[Gate]:
    """A new gate, which ends with the context."""
    command = [sys.executable, "-m", __name__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump((account, dict(upstreams)), process.stdin)
        process.stdin.flush()
        yield Gate(f"http://127.0.0.1:{int(process.stdout.readline())}", upstreams)
    finally:
        process.kill()
        process.wait()


Answer = tuple[int, dict[str, str], bytes]


class _State:
    """What the threads of a gate share."""

    def __init__(self, account: Account, upstreams: dict[str, str]) -> None:
        self.account, self.upstreams = account, upstreams
        self.caller: Caller | None = None
        self.judge = Judge({})
        self.aged: re.Pattern[str] | None = None
        self.record = Record()
        self.known = Known()
        self.lock = threading.Lock()

    def told(self, what: str, value: Any) -> Any:
        with self.lock:
            if what == "caller":
                self.caller = value
                self.judge = Judge(value.policies, value.bucket_policies) if value else Judge({})
            elif what == "upstreams":
                self.upstreams = value
            elif what == "aged":
                self.aged = None if value is None else re.compile(value)
            else:
                found, self.record = self.record, Record()
                return found
        return None

    def allowed(self, caller: Caller, asked: Asked) -> bool:
        """Whether `caller` has the right; recorded either way."""
        verdict, record = self.judge.verdict(asked), self.record
        with self.lock:
            record.asked[caller.command, caller.role, asked] += 1
            if verdict:
                record.used.setdefault(caller.role, {}).update(dict.fromkeys(verdict.grants))
            else:
                record.refused.append((caller.command, caller.role, asked))
        return bool(verdict)

    def refused_elsewhere(self, caller: Caller, what: str) -> None:
        with self.lock:
            self.record.elsewhere.append((caller.command, caller.role, what))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # engines open many connections at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error: engines drop what they read ahead."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, with a connection to each service that it speaks to."""

    of: _State
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self._connections: dict[str, HTTPConnection] = {}

    def log_message(self, *_: object) -> None: ...

    def handle_expect_100(self) -> bool:
        """Send at once that the body may come: a client that S3A uses waits for that for seconds, and then sends it anyway."""
        expected = super().handle_expect_100()
        self.wfile.flush()
        return expected

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urllib.parse.urlsplit(self.path)
        if url.path.startswith(CONTROL):
            self._send(200, {}, pickle.dumps(self.of.told(url.path.removeprefix(CONTROL), pickle.loads(body))))
            return
        query = {name: values[0] for name, values in urllib.parse.parse_qs(url.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            headers, body = _whole(headers, body)
        request = Request(self.command, url.path, query, headers, body)
        self._send(*self._decided(request))

    def _send(self, status: int, found: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in found.items():
            if name.lower() not in OF_A_HOP:
                self.send_header(name, value)
        length = found.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815 - the names that the server calls

    def _decided(self, request: Request) -> Answer:
        caller, of = self.of.caller, self.of
        if caller is None:
            return self._passed_on(request, None)
        asked = asked_of(request, of.account, of.known)
        if request.method == "POST" and "delete" in request.query:
            return self._deleted(request, caller, asked)
        for right in asked:
            if not of.allowed(caller, right):
                return refusal(request, caller, right)
        status, headers, content = self._passed_on(request, caller.keys)
        if status == 404 and request.service == "s3" and any(right.action == "s3:GetObject" for right in asked):
            # S3 says whether an object is there only to who may list it.
            right = listing_of(request, of.account)
            if not of.allowed(caller, right):
                return refusal(request, caller, right)
        if of.aged is not None and request.service == "s3" and "list-type" in request.query:
            content = _older(content, of.aged)
        if status in (401, 403):
            of.refused_elsewhere(caller, f"{asked[0]}: {content.decode(errors='replace')}")
        return status, headers, content

    def _deleted(self, request: Request, caller: Caller, asked: list[Asked]) -> Answer:
        """A request that deletes several objects: S3 refuses each of them by itself, and its answer has status 200."""
        lines = []
        bucket = request.path.lstrip("/").partition("/")[0]
        for right in asked:
            key = right.resource.partition(":::")[2].partition("/")[2]
            if not self.of.allowed(caller, right):
                lines.append(
                    f"<Error><Key>{escape(key)}</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
                )
                continue
            one = Request(
                "DELETE",
                f"/{bucket}/{urllib.parse.quote(key)}",
                {},
                {"authorization": request.headers["authorization"]},
            )
            status, _, content = self._passed_on(one, caller.keys)
            if status in (401, 403):
                self.of.refused_elsewhere(caller, f"{right}: {content!r}")
            lines.append(f"<Deleted><Key>{escape(key)}</Key></Deleted>")
        space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        xml = f'<?xml version="1.0" encoding="UTF-8"?><DeleteResult {space}>{"".join(lines)}</DeleteResult>'
        return 200, {"Content-Type": "application/xml"}, xml.encode()

    def _passed_on(self, request: Request, keys: tuple[str, str, str | None] | None) -> Answer:
        """The service's answer to the request, signed with `keys`."""
        service = request.service
        address = self.of.upstreams.get(service) or self.of.upstreams[""]
        raw = self.path if request.path == urllib.parse.urlsplit(self.path).path else request.path
        headers = {name: value for name, value in request.headers.items() if name not in (*OF_A_HOP, *OF_A_SIGNATURE)}
        sent = AWSRequest(request.method, f"{address}{raw}", headers, request.body)
        credentials = Credentials(*(keys or ROOT))
        (S3SigV4Auth if service == "s3" else SigV4Auth)(credentials, service, self.of.account.region).add_auth(sent)
        for attempt in (1, 2):
            connection = self._connections.setdefault(
                address, HTTPConnection(address.removeprefix("http://"), timeout=120)
            )
            try:
                connection.putrequest(request.method, raw, skip_accept_encoding=True)
                for name, value in sent.headers.items():
                    if name.lower() != "host":
                        connection.putheader(name, value)
                connection.putheader("Content-Length", str(len(request.body)))
                connection.endheaders(request.body)
                answer: HTTPResponse = connection.getresponse()
                return answer.status, dict(answer.getheaders()), answer.read()
            except (ConnectionError, OSError):
                # The service had closed an idle connection.
                connection.close()
                del self._connections[address]
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")


def _whole(headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """An upload in chunks, each of which begins with a line of its size, as one: S3A's client sends such.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
    """
    content, place = b"", 0
    while True:
        line = body.index(b"\r\n", place)
        size = int(body[place:line].partition(b";")[0], 16)
        if size == 0:
            break
        content += body[line + 2 : line + 2 + size]
        place = line + 2 + size + 2
    encodings = [one.strip() for one in headers.get("content-encoding", "").split(",")]
    left = ",".join(one for one in encodings if one not in ("", "aws-chunked"))
    found = {name: value for name, value in headers.items() if name not in (*OF_CHUNKS, "content-encoding")}
    return found | ({"content-encoding": left} if left else {}), content


def _older(listing: bytes, aged: re.Pattern[str]) -> bytes:
    """A listing in which the objects with keys like `aged` are a year older."""

    def older(match: re.Match[str]) -> str:
        if aged.search(urllib.parse.unquote(match[1])) is None:
            return match[0]
        changed = datetime.fromisoformat(match[3]) - timedelta(days=400)
        return f"<Key>{match[1]}</Key>{match[2]}<LastModified>{changed:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"

    return re.sub(r"<Key>([^<]+)</Key>(\s*)<LastModified>([^<]+)</LastModified>", older, listing.decode()).encode()


def refusal(request: Request, caller: Caller, right: Asked) -> Answer:
    """The service's answer to who lacks `right`, with the words of AWS. Those of S3 name no right, as before 2024 and to other
    accounts today."""
    arn = f"arn:aws:sts::123456789012:assumed-role/{caller.role}/session"
    because = f"because no identity-based policy allows the {right.action} action"
    said = f"User: {arn} is not authorized to perform: {right.action} on resource: {right.resource} {because}"
    if request.service == "s3":
        message = said if right.action.startswith("kms:") else "Access Denied"
        xml = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>{message}</Message></Error>'
        return 403, {"Content-Type": "application/xml"}, b"" if request.method == "HEAD" else xml.encode()
    if request.service == "quicksight":
        headers = {"Content-Type": "application/json", "x-amzn-ErrorType": "AccessDeniedException"}
        return 403, headers, json.dumps({"Message": said}).encode()
    answer = {"__type": "AccessDeniedException", "message": said}
    return 400, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(answer).encode()


def main() -> None:
    """A gate on a free port, for the account and the services that stdin names, until it is killed."""
    state = _State(*pickle.load(sys.stdin.buffer))

    class Handler(_Handler):
        of = state

    server = _Server(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    # Under its own name, by which what is pickled is known.
    from stock_lakehouse_tests.deployment import gate as this_module

    this_module.main()
