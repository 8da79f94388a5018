"""A server for tests with the REST paths of a Databricks workspace that a deployment uses, on loopback.

Here: instance profiles, service principals, storage credentials and external locations, as the API reference describes them; each
request is held against the SDK's types. Not here: product code, and what a test expects.
"""

from __future__ import annotations

import inspect
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from databricks.sdk.service import catalog, compute, iam

TOKEN = "dapi-of-the-test"
PRINCIPAL, PRINCIPAL_NUMBER = "7d1c1d9e-0000-4000-8000-6a1f7d2c0b11", "4711"
MASTER_ROLE = "arn:aws:iam::000000000000:role/unity-catalog-master"
CATALOG = "/api/2.1/unity-catalog"
PRINCIPALS = "/api/2.0/preview/scim/v2/ServicePrincipals"
CREATING = {
    "/api/2.0/instance-profiles/add",
    f"{CATALOG}/storage-credentials",
    f"{CATALOG}/external-locations",
}
Body = dict[str, Any]
Answer = tuple[int, Body]


@dataclass
class Workspace:
    """What the workspace holds, and what came. Tests set and read the fields.

    - trusted: the external ids that Unity Catalog's role trusts, as the second update of the stack makes it
    - refused: an answer (status, error code, message) by method and path, given instead of the work
    - lost: paths of which the next write is done, and its answer lost: the server answers 503 once
    - writes: method and path of each request that changed something
    - faults: what is wrong with the requests that came, by the SDK's types
    """

    instance_profiles: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    credentials: dict[str, Body] = field(default_factory=dict)
    locations: dict[str, Body] = field(default_factory=dict)
    trusted: set[str] = field(default_factory=set)
    refused: dict[tuple[str, str], tuple[int, str, str]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    writes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    host: str = ""

    def state(self) -> dict[str, Any]:
        """All that the workspace holds."""
        return {
            "instance_profiles": self.instance_profiles,
            "roles": self.roles,
            "credentials": self.credentials,
            "locations": self.locations,
        }

    def answer(self, method: str, path: str, query: dict[str, str], body: Body) -> Answer:
        """The answer to a request; it is kept in `writes` if it changed something."""
        if refusal := self.refused.get((method, path)):
            return refusal[0], {"error_code": refusal[1], "message": refusal[2]}
        found = self._work(method, path, query, body)
        if found[0] == 200 and (method == "PATCH" or (method == "POST" and path in CREATING)):
            self.writes.append(f"{method} {path}")
            if path in self.lost:
                self.lost.remove(path)
                return 503, {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "the answer was lost"}
        return found

    def _work(self, method: str, path: str, query: dict[str, str], body: Body) -> Answer:
        if path == "/api/2.0/instance-profiles/list":
            return 200, {"instance_profiles": [{"instance_profile_arn": arn} for arn in self.instance_profiles]}
        if path == "/api/2.0/instance-profiles/add":
            return self._add_profile(body)
        if path == PRINCIPALS:
            wanted = re.fullmatch('applicationId eq "(.+)"', query["filter"])
            first = int(query["startIndex"]) == 1 and wanted is not None and wanted[1] == PRINCIPAL
            return 200, {"Resources": [{"id": PRINCIPAL_NUMBER, "applicationId": PRINCIPAL}] if first else []}
        if path == f"{PRINCIPALS}/{PRINCIPAL_NUMBER}":
            return self._principal(method, body)
        kind, _, name = path.removeprefix(f"{CATALOG}/").partition("/")
        kinds: dict[str, Callable[[], Answer]] = {
            "storage-credentials": lambda: self._credential(method, name, body),
            "external-locations": lambda: self._location(method, name, body),
            "validate-storage-credentials": lambda: self._validate(body),
        }
        unknown = 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": path}
        return kinds.get(kind, lambda: unknown)()

    def _add_profile(self, body: Body) -> Answer:
        self._expect_parameters(compute.InstanceProfilesAPI.add, body)
        if body["instance_profile_arn"] in self.instance_profiles:
            return 400, {"error_code": "RESOURCE_ALREADY_EXISTS", "message": "the instance profile is registered"}
        self.instance_profiles.append(body["instance_profile_arn"])
        return 200, {}

    def _principal(self, method: str, body: Body) -> Answer:
        if method == "PATCH":
            [operation] = body["Operations"]
            self._expect(iam.Patch.from_dict(operation).as_dict(), operation)
            self._expect([iam.PatchSchema(schema).value for schema in body["schemas"]], body["schemas"])
            assert (operation["op"], operation["path"]) == ("add", "roles")
            self.roles += [role["value"] for role in operation["value"]]
            return 200, {}
        return 200, {"id": PRINCIPAL_NUMBER, "applicationId": PRINCIPAL, "roles": [{"value": it} for it in self.roles]}

    def _credential(self, method: str, name: str, body: Body) -> Answer:
        if method == "POST":
            self._expect(catalog.CreateStorageCredential.from_dict(body).as_dict(), body)
            if body["name"] in self.credentials:
                return 409, {"error_code": "ALREADY_EXISTS", "message": f"{body['name']} exists"}
            role = {
                **body["aws_iam_role"],
                "external_id": f"external-id-{len(self.credentials)}",
                "unity_catalog_iam_arn": MASTER_ROLE,
            }
            kept = {key: body[key] for key in ("name", "comment", "read_only")}
            self.credentials[body["name"]] = {**kept, "aws_iam_role": role}
            return 200, self.credentials[body["name"]]
        if name not in self.credentials:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"no storage credential {name}"}
        if method == "PATCH":
            self._expect(
                catalog.UpdateStorageCredential.from_dict({**body, "name": name}).as_dict(), {**body, "name": name}
            )
            self.credentials[name]["aws_iam_role"] |= body.get("aws_iam_role", {})
            self.credentials[name]["read_only"] = body.get("read_only", self.credentials[name]["read_only"])
        return 200, self.credentials[name]

    def _location(self, method: str, name: str, body: Body) -> Answer:
        kept = {key: body[key] for key in ("name", "url", "credential_name", "comment", "read_only") if key in body}
        if method == "POST":
            self._expect_parameters(catalog.ExternalLocationsAPI.create, body)
            if body["name"] in self.locations:
                return 409, {"error_code": "ALREADY_EXISTS", "message": f"{body['name']} exists"}
            self.locations[body["name"]] = kept
            return 200, kept
        if name not in self.locations:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"no external location {name}"}
        if method == "PATCH":
            self._expect_parameters(catalog.ExternalLocationsAPI.update, {**body, "name": name})
            self.locations[name] |= kept
        return 200, self.locations[name]

    def _validate(self, body: Body) -> Answer:
        self._expect_parameters(catalog.StorageCredentialsAPI.validate, body)
        role = self.credentials[body["storage_credential_name"]]["aws_iam_role"]
        works = role["external_id"] in self.trusted
        said = (
            {}
            if works
            else {"message": "AWS IAM role does not have READ permissions: not authorized to perform sts:AssumeRole"}
        )
        results = [{"operation": it, "result": "PASS" if works else "FAIL", **said} for it in ("READ", "LIST")]
        # An empty lake has no such folder yet.
        return 200, {"isDir": True, "results": [*results, {"operation": "PATH_EXISTS", "result": "FAIL"}]}

    def _expect_parameters(self, method: Callable[..., Any], body: Body) -> None:
        """Each member of the body is a parameter of the SDK's method, and each one that it needs is there."""
        parameters = inspect.signature(method).parameters
        needed = {name for name, it in parameters.items() if it.default is inspect.Parameter.empty} - {"self"}
        if not needed <= body.keys() <= parameters.keys():
            self.faults.append(f"{method.__qualname__}: {sorted(body)}")

    def _expect(self, understood: Any, sent: Any) -> None:
        """What the SDK's type makes of a request is the request itself: it knows every member."""
        if understood != sent:
            self.faults.append(f"sent {sent}, understood {understood}")


@contextmanager
def workspace_server() -> Iterator[Workspace]:
    """A workspace without anything, at `host`."""
    workspace = Workspace()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers["Content-Length"] or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            path, _, query = self.path.partition("?")
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                status, content = 401, {"error_code": "UNAUTHENTICATED", "message": "Invalid access token."}
            else:
                status, content = workspace.answer(self.command, path, dict(urllib.parse.parse_qsl(query)), body)
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PATCH(self) -> None:
            self._answer()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    workspace.host = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield workspace
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
