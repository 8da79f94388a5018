"""A gate before AWS's services on loopback: it refuses what the caller's role may not do, as AWS refuses it, and records the rest.

Here: the proxy, the refusals of each protocol, the record. Not here: which rights a request needs (asked.py), and the services.
"""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from stock_lakehouse_tests.deployment.asked import Account, Asked, Grant, Judge, Known, Request, asked_of, listing_of

ROOT = Credentials("test", "test")  # whom ministack asks for no rights
# Headers of a connection, and those of a signature that is made anew.
OF_A_HOP = ("connection", "expect", "transfer-encoding", "content-length", "host")
OF_A_SIGNATURE = ("authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256")


@dataclass(frozen=True)
class Caller:
    """Who asks: a role with its policies, in a command. `keys`: the role's own, for an emulator that asks for rights too."""

    role: str
    command: str
    judge: Judge
    keys: Credentials = ROOT


@dataclass
class Record:
    """What was asked for.

    - asked: how often each right was needed, by command and role
    - used: the grants that were needed, by role
    - refused: what IAM refused, with command and role
    - elsewhere: requests that the gate let through and the service behind it refused, with its answer
    """

    asked: Counter[tuple[str, str, Asked]] = field(default_factory=Counter)
    used: dict[str, set[Grant]] = field(default_factory=dict)
    refused: list[tuple[str, str, Asked]] = field(default_factory=list)
    elsewhere: list[tuple[str, str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Gate:
    """A running gate.

    - upstreams: the address of each service, by the name it is signed for; "" for all others
    - caller: None lets everything through, and nothing is recorded
    """

    def __init__(self, account: Account, upstreams: Mapping[str, str], record: Record) -> None:
        self.account, self.upstreams, self.record = account, dict(upstreams), record
        self.caller: Caller | None = None
        self.url = ""
        self._known = Known()

    @contextlib.contextmanager
    def called_by(self, caller: Caller) -> Iterator[None]:
        """Requests meanwhile are those of `caller`."""
        self.caller = caller
        try:
            yield
        finally:
            self.caller = None

    def allowed(self, caller: Caller, asked: Asked) -> bool:
        """Whether `caller` has the right; recorded either way."""
        verdict, record = caller.judge.verdict(asked), self.record
        with record.lock:
            record.asked[caller.command, caller.role, asked] += 1
            if verdict:
                record.used.setdefault(caller.role, set()).update(verdict.grants)
            else:
                record.refused.append((caller.command, caller.role, asked))
        return bool(verdict)

    def upstream(self, service: str) -> str:
        address = self.upstreams.get(service, self.upstreams.get("", ""))
        assert address, f"nothing here is {service}"
        return address


Answer = tuple[int, dict[str, str], bytes]


@contextlib.contextmanager
def gate(account: Account, upstreams: Mapping[str, str], record: Record) -> Iterator[Gate]:
    """A new gate, which ends with the context."""
    state = Gate(account, upstreams, record)

    class Handler(_Handler):
        of = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, with a connection to each service that it speaks to."""

    of: Gate
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self._connections: dict[str, HTTPConnection] = {}

    def log_message(self, *_: object) -> None: ...

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urllib.parse.urlsplit(self.path)
        query = {name: values[0] for name, values in urllib.parse.parse_qs(url.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, url.path, query, headers, body)
        status, found, content = self._decided(request)
        self.send_response_only(status)
        for name, value in found.items():
            if name.lower() not in OF_A_HOP:
                self.send_header(name, value)
        length = found.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815 - the names that the server calls

    def _decided(self, request: Request) -> Answer:
        caller, of = self.of.caller, self.of
        if caller is None:
            return self._passed_on(request, ROOT)
        asked = asked_of(request, of.account, of._known)
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
        if status in (401, 403):
            with of.record.lock:
                of.record.elsewhere.append((caller.command, caller.role, f"{asked[0]}: {content.decode(errors='replace')}"))
        return status, headers, content

    def _deleted(self, request: Request, caller: Caller, asked: list[Asked]) -> Answer:
        """A request that deletes several objects: S3 refuses each of them by itself, and its answer has status 200."""
        lines = []
        bucket = request.path.lstrip("/").partition("/")[0]
        for right in asked:
            key = right.resource.partition(":::")[2].partition("/")[2]
            if not self.of.allowed(caller, right):
                lines.append(f"<Error><Key>{escape(key)}</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
                continue
            one = Request("DELETE", f"/{bucket}/{urllib.parse.quote(key)}", {}, {"authorization": request.headers["authorization"]})
            status, _, content = self._passed_on(one, caller.keys)
            if status in (401, 403):
                with self.of.record.lock:
                    self.of.record.elsewhere.append((caller.command, caller.role, f"{right}: {content!r}"))
            lines.append(f"<Deleted><Key>{escape(key)}</Key></Deleted>")
        space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        xml = f'<?xml version="1.0" encoding="UTF-8"?><DeleteResult {space}>{"".join(lines)}</DeleteResult>'
        return 200, {"Content-Type": "application/xml"}, xml.encode()

    def _passed_on(self, request: Request, keys: Credentials) -> Answer:
        """The service's answer to the request, signed with `keys`."""
        service = request.service
        address = self.of.upstream(service)
        raw = self.path if request.path == urllib.parse.urlsplit(self.path).path else request.path
        headers = {
            name: value for name, value in request.headers.items() if name not in (*OF_A_HOP, *OF_A_SIGNATURE)
        }
        sent = AWSRequest(request.method, f"{address}{raw}", headers, request.body)
        (S3SigV4Auth if service == "s3" else SigV4Auth)(keys, service, self.of.account.region).add_auth(sent)
        for attempt in (1, 2):
            connection = self._connections.setdefault(address, HTTPConnection(address.removeprefix("http://"), timeout=120))
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


def refusal(request: Request, caller: Caller, right: Asked) -> Answer:
    """The service's answer to who lacks `right`, with the words of AWS. Those of S3 name no right, as before 2024 and to other
    accounts today."""
    if request.service == "s3":
        xml = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
        return 403, {"Content-Type": "application/xml"}, b"" if request.method == "HEAD" else xml.encode()
    arn = f"arn:aws:sts::123456789012:assumed-role/{caller.role}/session"
    because = f"because no identity-based policy allows the {right.action} action"
    said = f"User: {arn} is not authorized to perform: {right.action} on resource: {right.resource} {because}"
    if request.service == "quicksight":
        answer: dict[str, Any] = {"Message": said}
        return 403, {"Content-Type": "application/json", "x-amzn-ErrorType": "AccessDeniedException"}, json.dumps(answer).encode()
    answer = {"__type": "AccessDeniedException", "message": said}
    return 400, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(answer).encode()
