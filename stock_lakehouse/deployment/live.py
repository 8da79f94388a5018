"""What is deployed in the account, compared with what is rendered: the stack, its policies, and what IAM says that roles may do.

Here: calls that read. Not here: what is wrong without an account (check.py), and the lake itself (`doctor`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from stock_lakehouse import aws
from stock_lakehouse.deployment.places import Places, is_folder
from stock_lakehouse.deployment.policies import Document, policies_of
from stock_lakehouse.deployment.render import as_yaml
from stock_lakehouse.deployment.rights import Role, roles
from stock_lakehouse.deployment.stack.dagster import OWN_POLICIES
from stock_lakehouse.deployment.stack.roles import policy_id
from stock_lakehouse.deployment.template import template
from stock_lakehouse.diagnosis import Diagnosis

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

GOOD = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
SHOWN = 5
REFERENCE = re.compile(r"\$\{([\w:.]+)\}")
# Keys that no role may touch: beside the tables, and in the lake's root.
NEIGHBOURS = ("raw/stocks_daily_evil/object", "curated_evil/object", "object")
KINDS = {"s3:GetObject": ("read", "create"), "s3:PutObject": ("write", "create"), "s3:DeleteObject": ("delete",)}


class LiveError(Exception):
    """The account cannot be asked. The message says what to do."""


def examine_live(settings: Settings, stack: str) -> Iterator[Diagnosis]:
    """Compare the stack `stack` of the account with what `settings` give. Raises LiveError if AWS cannot be asked."""
    deployed = Deployed(stack)
    yield _state(deployed)
    known = roles(settings)
    yield _template(template(settings, known), deployed)
    for role in known.values():
        yield _policies(role, deployed)
    places = frozenset(place for role in known.values() for place in _places(role.places))
    for role in known.values():
        yield _simulated(role, places, deployed)


def keys_of(places: frozenset[str]) -> list[str]:
    """A key at each place, below the lake's root, and those of the neighbours."""
    at_places = (f"{place}/object" if is_folder(place) else place.replace("*", "x") for place in sorted(places))
    return [*at_places, *NEIGHBOURS]


def may(places: Places, action: str, key: str) -> bool:
    """Whether a role with `places` may do `action` of KINDS on the object `key`."""
    granted = frozenset[str]().union(*(getattr(places, kind) for kind in KINDS[action]))
    return any(_covers(place, key) for place in granted)


def _covers(place: str, key: str) -> bool:
    if is_folder(place):
        return key.startswith(f"{place}/")
    return re.fullmatch(".*".join(map(re.escape, place.split("*"))), key) is not None


def _places(places: Places) -> frozenset[str]:
    return places.read | places.write | places.create | places.delete


@dataclass(frozen=True)
class Deployed:
    """What the account says of a stack. Each property asks once."""

    stack: str

    @cached_property
    def state(self) -> str:
        return str(self._description["StackStatus"])

    @cached_property
    def template(self) -> str:
        """The text that was deployed."""
        with _named(f"stack {self.stack}", "CloudFormation", "cloudformation:GetTemplate"):
            body = self._stacks.get_template(StackName=self.stack, TemplateStage="Original")["TemplateBody"]
        return body if isinstance(body, str) else json.dumps(body)

    @cached_property
    def outputs(self) -> dict[str, str]:
        return {output["OutputKey"]: output["OutputValue"] for output in self._description.get("Outputs", ())}

    @property
    def region(self) -> str:
        return str(self._description["StackId"].split(":")[3])

    @cached_property
    def resources(self) -> dict[str, str]:
        """The name that AWS gave to each resource, by its identifier in the template."""
        with _named(f"stack {self.stack}", "CloudFormation", "cloudformation:ListStackResources"):
            pages = self._stacks.get_paginator("list_stack_resources").paginate(StackName=self.stack)
            return {
                resource["LogicalResourceId"]: resource["PhysicalResourceId"]
                for page in pages
                for resource in page["StackResourceSummaries"]
                if "PhysicalResourceId" in resource
            }

    def filled(self, text: str) -> str:
        """`text` with the names and parameters of this stack; a name that it does not have stays."""
        return REFERENCE.sub(lambda found: self._values.get(found[1], found[0]), text)

    def role_arn(self, role: Role) -> str | None:
        return self._values.get(f"{role.logical_id}.Arn")

    def attached(self, role: Role) -> dict[str, Document]:
        """The policies of a role: managed ones by their ARNs, those in the role itself by their names and with no document."""
        name = self.resources[role.logical_id]
        rights = "iam:ListAttachedRolePolicies, iam:ListRolePolicies, iam:GetPolicy and iam:GetPolicyVersion"
        with _named(f"role {name}", "IAM", rights):
            found: dict[str, Document] = {
                own: {}
                for page in self._iam.get_paginator("list_role_policies").paginate(RoleName=name)
                for own in page["PolicyNames"]
                if own not in OWN_POLICIES
            }
            for page in self._iam.get_paginator("list_attached_role_policies").paginate(RoleName=name):
                for policy in page["AttachedPolicies"]:
                    arn = policy["PolicyArn"]
                    version = self._iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
                    given = self._iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
                    found[arn] = json.loads(unquote(given)) if isinstance(given, str) else given
        return found

    def decisions(self, role_arn: str, actions: list[str], arns: list[str]) -> dict[tuple[str, str], bool]:
        """Whether IAM allows each action on each object, by the role's own policies."""
        found: dict[tuple[str, str], bool] = {}
        with _named(f"role {role_arn}", "IAM", "iam:SimulatePrincipalPolicy"):
            for arn in arns:  # one at a time: each answer is then complete, without pages
                answer = self._iam.simulate_principal_policy(
                    PolicySourceArn=role_arn, ActionNames=actions, ResourceArns=[arn]
                )
                for result in answer["EvaluationResults"]:
                    found[result["EvalActionName"], arn] = result["EvalDecision"] == "allowed"
        return found

    @cached_property
    def _description(self) -> dict[str, Any]:
        with _named(f"stack {self.stack}", "CloudFormation", "cloudformation:DescribeStacks"):
            [found] = self._stacks.describe_stacks(StackName=self.stack)["Stacks"]
        return dict(found)

    @cached_property
    def _values(self) -> Mapping[str, str]:
        _, partition, _, region, account, _ = self._description["StackId"].split(":", 5)
        parameters = {
            parameter["ParameterKey"]: parameter["ParameterValue"]
            for parameter in self._description.get("Parameters", ())
        }
        found = {
            "AWS::Partition": partition,
            "AWS::Region": region,
            "AWS::AccountId": account,
            "AWS::StackName": self.stack,
            **parameters,
            **self.resources,
            "Key.Arn": self.outputs.get("KeyArn", ""),
        }
        for name, physical in self.resources.items():
            if name.endswith("Role"):
                found[f"{name}.Arn"] = f"arn:{partition}:iam::{account}:role/{physical}"
        if "Cluster" in self.resources:
            found["Cluster.Arn"] = f"arn:{partition}:ecs:{region}:{account}:cluster/{self.resources['Cluster']}"
        return found

    @cached_property
    def _stacks(self) -> Any:
        return aws.client("cloudformation")

    @cached_property
    def _iam(self) -> Any:
        return aws.client("iam")


def _state(deployed: Deployed) -> Diagnosis:
    found = f"{deployed.stack} is {deployed.state}"
    if deployed.state in GOOD:
        return Diagnosis("stack", "ok", found)
    return Diagnosis("stack", "broken", f"{found}; look at its events, and deploy it again")


def _template(wanted: Document, deployed: Deployed) -> Diagnosis:
    import yaml

    if yaml.safe_load(deployed.template) == yaml.safe_load(as_yaml(wanted)):
        return Diagnosis("template", "ok", f"{deployed.stack} has the template that settings and graph give")
    return Diagnosis(
        "template",
        "broken",
        f"{deployed.stack} has another template than settings and graph give; run `stock-lakehouse deploy render`, then deploy "
        "the stack again",
    )


def _policies(role: Role, deployed: Deployed) -> Diagnosis:
    """Whether the role has the policies that are rendered, and no others."""
    what = f"role {role.name}"
    if role.logical_id not in deployed.resources:
        return Diagnosis(what, "broken", f"the stack {deployed.stack} has no {role.logical_id}; deploy it again")
    present = deployed.attached(role)
    wrong = []
    for part, policy in policies_of(role).items():
        arn = deployed.resources.get(policy_id(role, part))
        if arn is None:
            if role.name != "dagster":  # its right to start runs comes with Dagster
                wrong.append(f"{part}: missing")
            continue
        if arn not in present:
            wrong.append(f"{part}: not attached")
        elif _canonical(present.pop(arn)) != _canonical(json.loads(deployed.filled(json.dumps(policy)))):
            wrong.append(f"{part}: another document")
        present.pop(arn, None)
    wrong += [f"{arn}: attached by somebody else" for arn in present]
    if wrong:
        return Diagnosis(
            what, "broken", f"{'; '.join(wrong[:SHOWN])}; deploy the stack again, and detach what is not its own"
        )
    return Diagnosis(what, "ok", "its policies are the rendered ones")


def _simulated(role: Role, places: frozenset[str], deployed: Deployed) -> Diagnosis:
    """Whether IAM itself allows the role what its places say, and refuses it the places of others and their neighbours."""
    what = f"rights {role.name}"
    arn = deployed.role_arn(role)
    if arn is None:
        return Diagnosis(what, "broken", f"the stack {deployed.stack} has no {role.logical_id}; deploy it again")
    root = deployed.filled("arn:${AWS::Partition}:s3:::${Lake}/${Prefix}/")
    arns = {root + key: key for key in keys_of(places)}
    decisions = deployed.decisions(arn, list(KINDS), list(arns))
    wrong = [
        f"{'allowed' if is_allowed else 'refused'}: {action} on {arns[resource]}"
        for (action, resource), is_allowed in decisions.items()
        if is_allowed != may(role.places, action, arns[resource])
    ]
    if wrong:
        return Diagnosis(
            what,
            "broken",
            f"{len(wrong)} of {len(decisions)} answers of IAM are not what the tables say: {'; '.join(wrong[:SHOWN])}; deploy "
            "the stack again, and look for a boundary or a policy of the organization",
        )
    return Diagnosis(what, "ok", f"IAM answers as the tables say, {len(decisions)} times")


def _canonical(policy: Document) -> str:
    return json.dumps(policy, sort_keys=True)


def _named(what: str, service: str, right: str) -> Any:
    def of_answer(error: Any, subject: str) -> Exception:
        said = aws.message_of(error)
        if aws.code_of(error) in (*aws.DENIED, *aws.REJECTED):
            return LiveError(f"{subject}: {service} refuses ({said}); allow {aws.missing_right(said) or right}")
        return LiveError(
            f"{subject}: {said}; name the stack that `aws cloudformation deploy` made by --stack, in the region of AWS_REGION"
        )

    return aws.named_errors(what, service, "the stack", LiveError, of_answer)
