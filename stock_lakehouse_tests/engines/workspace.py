"""A Databricks workspace's front door for tests: one TLS port on loopback that speaks gRPC and HTTPS, as a workspace does.

gRPC calls are recorded and forwarded, byte by byte, to a real Spark Connect server; HTTPS is OAuth's token endpoint and the
Clusters API. Not here: anything that a test expects.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import trustme
from pyspark.sql import SparkSession
from pyspark.sql.connect.proto import base_pb2 as pb2

from stock_lakehouse.engines import spark_session
from stock_lakehouse.settings import Databricks

CLUSTER = "1124-163500-abcdefgh"
TOKEN = "dapi-of-the-test"
RUNNING = {"state": "RUNNING"}

SERVICE = "/spark.connect.SparkConnectService/"
STREAMS = ("ExecutePlan", "ReattachExecute")
TOKEN_PATH = "/oidc/v1/token"
SECONDS_BEFORE_EXPIRY = 40  # at which the Databricks SDK takes a token for expired


@dataclass
class Call:
    """One gRPC call as it came in."""

    method: str
    metadata: dict[str, str]

    @property
    def token(self) -> str:
        return self.metadata.get("authorization", "").removeprefix("Bearer ")


@dataclass
class Workspace:
    """What the front door lets in, and what came. Tests set the fields and read `calls` and `requests`."""

    tokens: dict[str, float] = field(default_factory=dict)  # token → until when it is taken (time.time)
    clusters: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # id → its answers, the last one stays
    after_start: list[dict[str, Any]] = field(default_factory=list)  # a cluster's answers once it was started
    token_seconds: float = SECONDS_BEFORE_EXPIRY + 1.0
    client: tuple[str, str] = ("", "")
    drop_streams: int = 0  # so many streams break after their first answer
    rewrite: Callable[[bytes], bytes] = bytes
    calls: list[Call] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)  # (method and path, user agent)
    broken: list[Any] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)  # what Spark Connect clients call themselves
    host: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def takes(self, token: str) -> bool:
        return self.tokens.get(token, 0.0) > time.time()

    def methods(self) -> list[str]:
        return [call.method for call in self.calls]

    def issue(self) -> dict[str, Any]:
        with self.lock:
            token = f"oauth-{len(self.tokens)}"
            self.tokens[token] = time.time() + self.token_seconds
        return {"access_token": token, "token_type": "Bearer", "expires_in": int(self.token_seconds)}

    def cluster(self, cluster_id: str) -> dict[str, Any]:
        with self.lock:
            answers = self.clusters[cluster_id]
            return answers.pop(0) if len(answers) > 1 else answers[0]


class _Forward(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, workspace: Workspace, channel: grpc.Channel) -> None:
        self._workspace, self._channel = workspace, channel

    def service(self, details: Any) -> Any:
        name = details.method.removeprefix(SERVICE)
        if name in STREAMS:
            return grpc.unary_stream_rpc_method_handler(self._stream(details.method, self._channel.unary_stream))
        if name == "AddArtifacts":
            return grpc.stream_unary_rpc_method_handler(self._one(details.method, self._channel.stream_unary))
        return grpc.unary_unary_rpc_method_handler(self._one(details.method, self._channel.unary_unary))

    def _enter(self, method: str, context: Any) -> None:
        call = Call(method.removeprefix(SERVICE), dict(context.invocation_metadata()))
        self._workspace.calls.append(call)
        if not self._workspace.takes(call.token):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Credential was not sent or was of an unsupported type")

    def _one(self, method: str, kind: Any) -> Any:
        forward = kind(method)

        def handle(request: Any, context: Any) -> Any:
            self._enter(method, context)
            if method == SERVICE + "Config":
                self._workspace.agents.add(pb2.ConfigRequest.FromString(request).client_type)
            try:
                return forward(request)
            except grpc.RpcError as error:
                _pass_on(error, context)

        return handle

    def _stream(self, method: str, kind: Any) -> Any:
        forward = kind(method)

        def handle(request: bytes, context: Any) -> Iterator[bytes]:
            self._enter(method, context)
            try:
                answers = forward(self._workspace.rewrite(request))
                for number, answer in enumerate(answers):
                    if number == 1 and self._dropping():
                        self._workspace.broken.append(
                            answers
                        )  # the server goes on: only this end of the stream is lost
                        context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
                    yield answer
            except grpc.RpcError as error:
                _pass_on(error, context)

        return handle

    def _dropping(self) -> bool:
        with self._workspace.lock:
            self._workspace.drop_streams -= 1
            return self._workspace.drop_streams >= 0


def _pass_on(error: Any, context: Any) -> None:
    details = [item for item in error.trailing_metadata() or () if item[0] == "grpc-status-details-bin"]
    context.set_trailing_metadata(details)
    context.abort(error.code(), error.details())


def _http(workspace: Workspace) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            workspace.requests.append((f"GET {path}", self.headers["User-Agent"]))
            if path == "/oidc/.well-known/oauth-authorization-server":
                base = workspace.host
                self._answer(
                    200, {"authorization_endpoint": f"{base}/oidc/v1/authorize", "token_endpoint": base + TOKEN_PATH}
                )
            elif path.endswith("/clusters/get") and self._may():
                cluster_id = query.partition("cluster_id=")[2]
                if cluster_id in workspace.clusters:
                    self._answer(200, {"cluster_id": cluster_id, **workspace.cluster(cluster_id)})
                else:
                    said = f"Cluster {cluster_id} does not exist"
                    self._answer(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": said})
            elif not path.endswith("/clusters/get"):
                self._answer(404, {"error_code": "ENDPOINT_NOT_FOUND", "message": path})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
            workspace.requests.append((f"POST {self.path}", self.headers["User-Agent"]))
            if self.path == TOKEN_PATH:
                import base64

                given = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
                if given == ":".join(workspace.client):
                    self._answer(200, workspace.issue())
                else:
                    self._answer(401, {"error": "invalid_client", "error_description": "Client authentication failed"})
            elif self.path.endswith("/clusters/start") and self._may():
                workspace.clusters[json.loads(body)["cluster_id"]] = list(workspace.after_start)
                self._answer(200, {})

        def _may(self) -> bool:
            allowed = workspace.takes(self.headers.get("Authorization", "").removeprefix("Bearer "))
            if not allowed:
                self._answer(403, {"error_code": 403, "message": "Invalid access token."})
            return allowed

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def authority(folder: Path) -> tuple[trustme.CA, Path]:
    """A certificate authority, and the file to trust it by."""
    ca = trustme.CA()
    trusted = folder / "ca.pem"
    ca.cert_pem.write_to_path(str(trusted))
    return ca, trusted


@contextmanager
def workspace_at(upstream: str, ca: trustme.CA, folder: Path) -> Iterator[Workspace]:
    """A workspace whose Spark Connect calls go to the server at `upstream` (host:port), its certificate signed by `ca`."""
    workspace = Workspace()
    issued = ca.issue_cert("127.0.0.1")
    key, chain = folder / "key.pem", folder / "chain.pem"
    issued.private_key_pem.write_to_path(str(key))
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    channel = grpc.insecure_channel(upstream, options=options)
    spark = grpc.server(ThreadPoolExecutor(32), options=options)
    spark.add_generic_rpc_handlers([_Forward(workspace, channel)])
    spark_port = spark.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(key.read_bytes(), chain.read_bytes())])
    )
    spark.start()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain, key)
    rest = ThreadingHTTPServer(("127.0.0.1", 0), _http(workspace))
    rest.socket = tls.wrap_socket(rest.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    door = socket.create_server(("127.0.0.1", 0))
    workspace.host = f"https://127.0.0.1:{door.getsockname()[1]}"
    threading.Thread(target=_keep_door, args=(door, spark_port, rest.server_address[1]), daemon=True).start()
    try:
        yield workspace
    finally:
        door.close()
        rest.shutdown()
        rest.server_close()
        spark.stop(None).wait()
        channel.close()


def _keep_door(door: socket.socket, spark_port: int, rest_port: int) -> None:
    """Connect whoever comes to gRPC or to HTTPS, by the protocol that the ClientHello offers (ALPN)."""
    while True:
        try:
            guest, _ = door.accept()
        except OSError:
            return
        threading.Thread(target=_show_in, args=(guest, spark_port, rest_port), daemon=True).start()


def _show_in(guest: socket.socket, spark_port: int, rest_port: int) -> None:
    hello = guest.recv(4096, socket.MSG_PEEK)
    try:
        room = socket.create_connection(("127.0.0.1", spark_port if b"\x02h2" in hello else rest_port))
    except OSError:
        guest.close()
        return
    threading.Thread(target=_carry, args=(guest, room), daemon=True).start()
    _carry(room, guest)


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def on(workspace: Workspace, **values: object) -> Databricks:
    """Settings for CLUSTER of `workspace`, or with other `values`."""
    return Databricks.model_validate({"host": workspace.host, "cluster_id": CLUSTER, **values})


def session_on(databricks: Databricks, said: list[str] | None = None) -> AbstractContextManager[SparkSession]:
    """A session as a run starts it; `said` gets what the waiting says."""
    return spark_session("databricks", databricks=databricks, say=(said if said is not None else []).append)
