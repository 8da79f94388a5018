"""What a lake needs in a Databricks workspace and in Unity Catalog before its bundle is deployed, by the SDK.

Here: what is there against what should be, and the writes that lead from one to the other. Not here: what the bundle makes
(bundle.py), and the client with its credentials (engines/databricks.py).

Each write can be killed, and the next call goes on: a step first asks what is there, and writes only what differs. A name
of another lake is refused: the comment of a storage credential and the address of an external location say whose they are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stock_lakehouse.deployment.stack.roles import CATALOG_ROLE
from stock_lakehouse.engines.errors import CREDENTIALS
from stock_lakehouse.instance.home import write_new
from stock_lakehouse.lake.storage import under
from stock_lakehouse.lake.storage.messages import first_line
from stock_lakehouse.provisioning import UNCHANGED, Step
from stock_lakehouse.tables import CURATED

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.catalog import ExternalLocationInfo, StorageCredentialInfo

    from stock_lakehouse.deployment.live import Deployed
    from stock_lakehouse.settings import Settings

# Outputs of the CloudFormation stack, and the parameters that its second update needs.
INSTANCE_PROFILE, LAKE_ROOT = "JobInstanceProfile", "LakeRoot"
EXTERNAL_ID, CATALOG_PRINCIPAL = "UnityCatalogExternalId", "UnityCatalogPrincipal"
DEPLOY_ROLE = "DatabricksDeployRole"
# What the options may be: an ARN in the place of another one, or a display name, is found before anything is written.
FORMS = {
    "--instance-profile": (
        r"arn:aws[a-z-]*:iam::\d{12}:instance-profile/.+",
        "arn:aws:iam::ACCOUNT:instance-profile/NAME",
    ),
    "--catalog-role": (r"arn:aws[a-z-]*:iam::\d{12}:role/.+", "arn:aws:iam::ACCOUNT:role/NAME"),
    "--principal": (r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "the application id of a service principal"),
    "--name": (r"[A-Za-z0-9_-]{1,255}", "letters, digits, _ and -"),
}


class WorkspaceError(Exception):
    """The workspace was not brought to what the lake needs. The message says what to do; what was written stays."""


class OtherLakeError(WorkspaceError):
    """The name is used for another lake. The message names what has it."""


@dataclass(frozen=True)
class Wanted:
    """What the workspace should have.

    - lake: root of the lake on S3
    - instance_profile: ARN of that of the role `job`; None: the clusters are not prepared
    - catalog_role: ARN of the role of Unity Catalog; None: Unity Catalog does not read the lake
    - principal: application id of the service principal that runs the jobs in production; None: there is none
    - region: of the lake's bucket
    - name: of the storage credential and of the external location
    """

    lake: str
    instance_profile: str | None
    catalog_role: str | None
    principal: str | None
    region: str | None
    name: str


@dataclass
class Outcome:
    """What a call did, or with `dry_run` would do.

    - steps: in their order
    - writes: how many of them wrote to the workspace, or would
    - parameters: of the CloudFormation stack, by name: what the trust of Unity Catalog's role needs
    """

    dry_run: bool
    steps: list[Step] = field(default_factory=list)
    writes: int = 0
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return all(step.action != "waiting" for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {**asdict(self), "complete": self.is_complete}


def wanted_of(
    settings: Settings,
    stack: Deployed | None,
    instance_profile: str | None,
    catalog_role: str | None,
    principal: str | None,
    region: str | None,
    name: str,
) -> Wanted:
    """What the workspace should have, for the lake of the settings. `stack`: its outputs are what to register; None: the ARNs.

    Raises WorkspaceError for an option of another form, for a lake that is not on S3, for settings that name another lake than
    the stack's, and for a stack without Databricks; LiveError if AWS does not give the stack.
    """
    given = dict(zip(FORMS, (instance_profile, catalog_role, principal, name), strict=True))
    for option, (pattern, form) in FORMS.items():
        if (value := given[option]) is not None and not re.fullmatch(pattern, value):
            raise WorkspaceError(f"{option}: {value!r} is not of the form: {form}")
    lake = settings.lake_root
    if not isinstance(lake, str):
        raise WorkspaceError(f"lake_root: {lake} is a folder; what Databricks reads with a role is a lake on S3")
    if stack is not None:
        root = stack.outputs.get(LAKE_ROOT)
        if root is None:
            raise WorkspaceError(f"stack {stack.stack}: it has no output {LAKE_ROOT}; name the stack of the lake")
        if root != lake:
            raise WorkspaceError(
                f"lake_root: is {lake}, and the lake of stack {stack.stack} is another one; set lake_root = "
                f'"{root}" in lakehouse.toml, or give --stack the name of another stack'
            )
        instance_profile, catalog_role = stack.outputs.get(INSTANCE_PROFILE), stack.outputs.get(CATALOG_ROLE)
        region = region or stack.region
        if instance_profile is None:
            raise WorkspaceError(
                f"stack {stack.stack}: it has no output {INSTANCE_PROFILE}, because it was rendered without Databricks; set "
                'engine = "databricks", call `stock-lakehouse deploy render`, and deploy the stack again'
            )
    return Wanted(lake, instance_profile, catalog_role, principal, region or os.environ.get("AWS_REGION"), name)


def prepare(
    wanted: Wanted, client: WorkspaceClient, dry_run: bool = False, tell: Callable[[str], None] = lambda line: None
) -> Outcome:
    """Bring the workspace to what is wanted. Only what differs is written.

    - dry_run: say what would be written, and write nothing
    - tell: called with a line of text before each write

    Raises WorkspaceError and OtherLakeError.
    """
    return _Preparation(wanted, client, dry_run, tell).run()


def write_variables(wanted: Wanted, folder: Path, dry_run: bool = False) -> list[Step]:
    """Write the variables of the bundle in `folder` where `databricks bundle` looks for them, for both targets."""
    values = {"instance_profile": wanted.instance_profile, "region": wanted.region}
    steps = []
    for target, more in (("dev", {}), ("production", {"principal": wanted.principal})):
        path = folder / ".databricks" / "bundle" / target / "variable-overrides.json"
        present = _read_variables(path)
        new = {**present, **{name: value for name, value in (values | more).items() if value is not None}}
        action = UNCHANGED if new == present else "would be written" if dry_run else "written"
        if action == "written":
            write_new(path, json.dumps(new, indent=2) + "\n", force=True)
        steps.append(Step(f"variables of the target {target}", action, str(path)))
    return steps


def _read_variables(path: Path) -> dict[str, Any]:
    try:
        present = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise WorkspaceError(f"{path}: is not JSON ({error}); correct or remove it") from None
    if not isinstance(present, dict):
        raise WorkspaceError(f"{path}: is no JSON object; correct or remove it")
    return present


class _Preparation:
    def __init__(self, wanted: Wanted, client: WorkspaceClient, dry_run: bool, tell: Callable[[str], None]) -> None:
        self._wanted, self._client, self._tell = wanted, client, tell
        self._outcome = Outcome(dry_run)

    def run(self) -> Outcome:
        if self._wanted.instance_profile:
            self._instance_profile(self._wanted.instance_profile)
            if self._wanted.principal:
                self._use(self._wanted.instance_profile, self._wanted.principal)
        if self._wanted.catalog_role:
            credential = self._credential(self._wanted.catalog_role)
            if self._trusted(credential):
                self._location()
        return self._outcome

    def _instance_profile(self, arn: str) -> None:
        what = f"instance profile {arn}"
        advice = f"the role with which Databricks deploys clusters needs iam:PassRole on its role: set the stack's {DEPLOY_ROLE}"
        with _named(what, "be an administrator of the workspace", advice):
            if any(profile.instance_profile_arn == arn for profile in self._client.instance_profiles.list()):
                self._step(what, UNCHANGED)
            else:
                self._write(what, "registered", partial(self._client.instance_profiles.add, arn))

    def _use(self, arn: str, principal: str) -> None:
        from databricks.sdk.service.iam import Patch, PatchOp, PatchSchema

        what = f"use of the instance profile by service principal {principal}"
        with _named(what, "be an administrator of the workspace", "check --principal"):
            found = list(self._client.service_principals.list(filter=f'applicationId eq "{principal}"'))
            if not found or found[0].id is None:
                raise WorkspaceError(
                    f"{what}: the workspace has no service principal with this application id; add it in the settings of the "
                    "workspace (Identity and access → Service principals), or correct --principal"
                )
            identifier = found[0].id
            roles = self._client.service_principals.get(identifier).roles or []
            if any(role.value == arn for role in roles):
                self._step(what, UNCHANGED)
                return
            operations = [Patch(op=PatchOp.ADD, path="roles", value=[{"value": arn}])]
            schemas = [PatchSchema.URN_IETF_PARAMS_SCIM_API_MESSAGES_2_0_PATCH_OP]
            patch = self._client.service_principals.patch
            self._write(what, "granted", partial(patch, identifier, operations=operations, schemas=schemas))

    def _credential(self, role: str) -> StorageCredentialInfo | None:
        """The storage credential. None with `dry_run` if there is none yet."""
        from databricks.sdk.service.catalog import AwsIamRoleRequest

        name, comment = self._wanted.name, f"Reads the lake at {self._wanted.lake}. Kept by stock-lakehouse."
        what = f"storage credential {name}"
        credentials = self._client.storage_credentials
        with _named(
            what, "be a metastore admin, or have CREATE STORAGE CREDENTIAL on the metastore", "check --catalog-role"
        ):
            present: StorageCredentialInfo | None = _found(lambda: credentials.get(name))
            if present is not None and present.comment != comment:
                raise OtherLakeError(
                    f"{what}: it exists, and its comment does not say that it is of this lake ({present.comment or 'none'}); "
                    f'give --name another name, or set its comment to "{comment}"'
                )
            iam_role = AwsIamRoleRequest(role)
            # Without validation: the role cannot trust the credential before it exists, because its external id comes with it.
            if present is None:
                create = partial(credentials.create, name, aws_iam_role=iam_role, comment=comment)
                self._write(what, "created", partial(create, read_only=True, skip_validation=True))
            elif present.aws_iam_role is None or present.aws_iam_role.role_arn != role or not present.read_only:
                update = partial(credentials.update, name, aws_iam_role=iam_role)
                self._write(what, "changed", partial(update, read_only=True, skip_validation=True))
            else:
                self._step(what, UNCHANGED)
            found: StorageCredentialInfo | None = _found(lambda: credentials.get(name))
        if found is not None and found.aws_iam_role is not None:
            values = {
                EXTERNAL_ID: found.aws_iam_role.external_id,
                CATALOG_PRINCIPAL: found.aws_iam_role.unity_catalog_iam_arn,
            }
            self._outcome.parameters = {name: value for name, value in values.items() if value}
        return found

    def _trusted(self, credential: StorageCredentialInfo | None) -> bool:
        """Whether Databricks can read the lake with the credential."""
        from databricks.sdk.service.catalog import ValidationResultOperation, ValidationResultResult

        what = f"reading {self._wanted.lake} with the credential"
        if credential is None:
            self._step(what, "waiting", "there is no credential yet")
            return False
        # The role reads tables and lists no parent of them, so the root itself would be refused.
        place = str(under(self._wanted.lake, CURATED.path))
        with _named(what, "be the owner of the storage credential", "run the same again"):
            answer = self._client.storage_credentials.validate(
                storage_credential_name=self._wanted.name, url=place, read_only=True
            )
        needed = (ValidationResultOperation.READ, ValidationResultOperation.LIST)
        refused = [
            result
            for result in answer.results or []
            if result.operation in needed and result.result == ValidationResultResult.FAIL
        ]
        if not answer.results or refused:
            reason = (
                "; ".join(str(result.message or "no reason given") for result in refused)
                or "Databricks validated nothing"
            )
            parameters = " ".join(f"{name}={value}" for name, value in self._outcome.parameters.items())
            self._step(
                what,
                "waiting",
                f"{reason}; the role has to trust the credential: deploy the stack again with {parameters}, wait a "
                "minute, then run the same again",
            )
            return False
        self._step(what, "works")
        return True

    def _location(self) -> None:
        name, url = self._wanted.name, self._wanted.lake
        what = f"external location {name}"
        locations = self._client.external_locations
        with _named(
            what,
            "be a metastore admin, or have CREATE EXTERNAL LOCATION on the metastore and on the storage credential",
            f"remove or narrow the external location that overlaps {url}",
        ):
            present: ExternalLocationInfo | None = _found(lambda: locations.get(name))
            # Without validation: the credential was validated at a table, and its role does not list the root.
            if present is None:
                create = partial(locations.create, name, url, name, comment="The lake of stock-lakehouse, read only.")
                self._write(what, "created", partial(create, read_only=True, skip_validation=True))
            elif (present.url or "").rstrip("/") != url:
                raise OtherLakeError(f"{what}: it exists and is of {present.url}; give --name another name")
            elif present.credential_name != name or not present.read_only:
                update = partial(locations.update, name, credential_name=name)
                self._write(what, "changed", partial(update, read_only=True, skip_validation=True))
            else:
                self._step(what, UNCHANGED)

    def _write(self, what: str, action: str, write: Callable[[], Any]) -> None:
        self._outcome.writes += 1
        if self._outcome.dry_run:
            self._step(what, f"would be {action}")
            return
        self._tell(what)
        _created_once(write)
        self._step(what, action)

    def _step(self, what: str, action: str, detail: str = "") -> None:
        self._outcome.steps.append(Step(what, action, detail))


def _found(read: Callable[[], Any]) -> Any:
    """The answer of `read`; None if there is no such thing."""
    from databricks.sdk.errors import NotFound

    try:
        return read()
    except NotFound:
        return None


def _created_once(write: Callable[[], Any]) -> None:
    """Call `write`. That a thing exists already is no error: the SDK repeats a call whose answer was lost."""
    from databricks.sdk.errors import AlreadyExists, ResourceAlreadyExists

    try:
        write()
    except (AlreadyExists, ResourceAlreadyExists):
        return


@contextmanager
def _named(what: str, right: str, advice: str) -> Iterator[None]:
    """Errors of the SDK as WorkspaceError.

    - right: what the caller has to be or have
    - advice: what to change if the request itself is refused
    """
    from databricks.sdk.errors import BadRequest, PermissionDenied, ResourceConflict, Unauthenticated
    from databricks.sdk.errors.base import DatabricksError

    try:
        yield
    except Unauthenticated as error:
        raise WorkspaceError(
            f"{what}: Databricks rejects the credentials ({first_line(error)}); {CREDENTIALS}"
        ) from None
    except PermissionDenied as error:
        raise WorkspaceError(f"{what}: Databricks refuses ({first_line(error)}); you have to {right}") from None
    except (BadRequest, ResourceConflict) as error:
        raise WorkspaceError(f"{what}: {first_line(error)}; {advice}") from None
    except (DatabricksError, OSError, ValueError) as error:
        raise WorkspaceError(
            f"{what}: the workspace does not do it ({first_line(error)}); run the same again: what was written stays"
        ) from None
