"""What is deployed in the account, compared with what is rendered: the stack, its policies, and what IAM says that roles may do.

Here: calls that read. Not here: what is wrong without an account (check.py), and the lake itself (`doctor`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
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

    def decisions(
        self, role_arn: str, actions: list[str], resource: str, context: Mapping[str, str] | None = None
    ) -> dict[str, bool]:
        """Whether IAM allows each action on `resource`, an ARN or `*`, by the role's own policies.

        `context`: the keys of conditions that the request has.
        """
        entries = [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in (context or {}).items()
        ]
        with _named(f"role {role_arn}", "IAM", "iam:SimulatePrincipalPolicy"):
            # One resource at a time: each answer is then complete, without pages.
            answer = self._iam.simulate_principal_policy(
                PolicySourceArn=role_arn, ActionNames=actions, ResourceArns=[resource], ContextEntries=entries
            )
        return {result["EvalActionName"]: result["EvalDecision"] == "allowed" for result in answer["EvaluationResults"]}

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
    """Whether IAM itself allows the role what its places and services say, and refuses it others' places and their neighbours."""
    what = f"rights {role.name}"
    arn = deployed.role_arn(role)
    if arn is None:
        return Diagnosis(what, "broken", f"the stack {deployed.stack} has no {role.logical_id}; deploy it again")
    root = deployed.filled("arn:${AWS::Partition}:s3:::${Lake}/${Prefix}/")
    answers, wrong = 0, list[tuple[str, str]]()
    for key in keys_of(places):
        for action, is_allowed in deployed.decisions(arn, list(KINDS), root + key).items():
            answers += 1
            if is_allowed != may(role.places, action, key):
                wrong.append((f"{'allowed' if is_allowed else 'refused'}: {action}", key))
    for actions, resource, context in needs(role, deployed):
        having = "".join(f" with {key} {value}" for key, value in context.items())
        for action, is_allowed in deployed.decisions(arn, actions, resource, context).items():
            answers += 1
            if not is_allowed:
                wrong.append((f"refused: {action}", f"{resource}{having}"))
    if wrong:
        examples = [f"{said} on {where}" for said, where in dict(wrong).items()]  # one of each
        return Diagnosis(
            what,
            "broken",
            f"{len(wrong)} of {answers} answers of IAM are not what tables and services say: {'; '.join(examples[:SHOWN])}; "
            "deploy the stack again, and look for a boundary or a policy of the organization",
        )
    return Diagnosis(what, "ok", f"IAM answers as tables and services say, {answers} times")


def needs(role: Role, deployed: Deployed) -> Iterator[tuple[list[str], str, dict[str, str]]]:
    """What a role needs beyond objects of the lake: actions, an example of their resource, and the keys of their conditions.

    That is listing each place, using the key, and all at other services. Without policies that the stack does not have.
    """
    for part, policy in policies_of(role).items():
        if part.startswith(("list", "services")) and policy_id(role, part) in deployed.resources:
            for statement in policy["Statement"]:
                for resource, context in product(statement["Resource"], _contexts(statement, deployed)):
                    yield statement["Action"], _example(deployed.filled(resource)), context


def _contexts(statement: Document, deployed: Deployed) -> Iterator[dict[str, str]]:
    """The keys of a request for which the conditions of `statement` hold, once for each value that they allow.

    Of a folder (`p`) and its keys (`p/*`) one value is enough: they are always given together.
    """
    conditions = {key: value for keys in statement.get("Condition", {}).values() for key, value in keys.items()}
    listed = [
        [value] if isinstance(value, str) else [one for one in value if f"{one}/*" not in value]
        for value in conditions.values()
    ]
    for values in product(*listed):
        context = {}
        for key, value in zip(conditions, map(deployed.filled, values), strict=True):
            if variable := REFERENCE.fullmatch(value):  # of who asks, like ${aws:userid}
                context[variable[1]] = "example"
            context[key] = "example" if variable else _example(value)
        yield context


def _example(pattern: str) -> str:
    """A resource or value that `pattern` stands for."""
    return pattern if pattern == "*" else pattern.replace("*", "x")


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
