"""What the linters of CloudFormation and of IAM find: nothing but what is listed here with its reason; and planted faults."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stock_lakehouse.deployment.policies import Names, policies_of
from stock_lakehouse.deployment.render import as_yaml
from stock_lakehouse.deployment.rights import roles
from stock_lakehouse_tests.deployment.stacks import full, least, text_of
from stock_lakehouse_tests.deployment.tools import tool

pytestmark = pytest.mark.deploy

# Findings of cfn-lint that are left out.
SKIPPED_BY_CFN_LINT = {
    "W3691": "the version of PostgreSQL is the major one alone, of which RDS makes its default minor version",
}
# Findings of checkov that are left out, with the resource.
SKIPPED_BY_CHECKOV = {
    ("CKV_AWS_18", "AWS::S3::Bucket.AccessLogs"): "the bucket of access logs would write about its own writes",
    (
        "CKV_AWS_157",
        "AWS::RDS::DBInstance.Database",
    ): "two zones double the price; the parameter DatabaseZones asks for them",
    (
        "CKV_AWS_118",
        "AWS::RDS::DBInstance.Database",
    ): "metrics of the machine cost more than they tell of so small a database",
}
# Findings of parliament that are left out.
SKIPPED_BY_PARLIAMENT = {
    "RESOURCE_STAR": "each right on everything has its reason, see test_template.py",
    **dict.fromkeys(
        ("RESOURCE_MISMATCH quicksight:CreateDataSet", "RESOURCE_MISMATCH quicksight:UpdateDataSet"),
        "the action asks for a data set and for its data source, which are in two statements; it looks at each alone",
    ),
}
NAMES = Names(
    "aws", "eu-central-1", "111122223333", "stocks", "team/lake", "arn:aws:kms:eu-central-1:111122223333:key/1"
)
PARLIAMENT = """
import json, sys
from parliament import analyze_policy_string
policies = json.load(sys.stdin)
found = {name: [" ".join([finding.issue, *(detail["action"] for detail in finding.detail or () if "action" in detail)])
                for finding in analyze_policy_string(json.dumps(policy)).findings]
         for name, policy in policies.items()}
json.dump(found, sys.stdout)
"""


def run(*command: str | Path, given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    return done.stdout


def faulty() -> str:
    """The lake's bucket alone, with a property that does not exist, a missing resource, and open to the public."""
    made: dict[str, Any] = yaml.safe_load(text_of(least))
    resources = {name: made["Resources"][name] for name in ("Key", "AccessLogs", "Lake")}
    resources["Key"]["Properties"]["EnableKeyRotations"] = True
    resources["Lake"]["Properties"]["LoggingConfiguration"]["DestinationBucketName"] = {"Ref": "Missing"}
    del resources["Lake"]["Properties"]["PublicAccessBlockConfiguration"], resources["Lake"]["DependsOn"]
    return as_yaml({"Parameters": {"Prefix": made["Parameters"]["Prefix"]}, "Resources": resources})


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the templates as files."""
    folder = tmp_path_factory.mktemp("templates")
    for name, text in (("full", text_of(full)), ("least", text_of(least)), ("faulty", faulty())):
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_cfn_lint_finds_nothing_in_the_templates_and_planted_faults_in_another(templates: Path) -> None:
    files = sorted(templates.glob("*.yaml"))
    found: dict[str, set[str]] = {file.stem: set() for file in files}
    for finding in json.loads(run(tool("cfn-lint"), "--format", "json", *files)):
        if finding["Rule"]["Id"] not in SKIPPED_BY_CFN_LINT:
            found[Path(finding["Filename"]).stem].add(finding["Rule"]["Id"])
    assert (found["full"], found["least"]) == (set(), set())
    assert len(found["faulty"]) == 2, found["faulty"]  # the property, and the reference


@pytest.mark.timeout(300)
def test_checkov_finds_what_is_explained(templates: Path) -> None:
    report = checkov(templates / "full.yaml")
    assert failures(report) == SKIPPED_BY_CHECKOV.keys()
    assert report["summary"]["passed"] > 300


@pytest.mark.soak
def test_checkov_finds_a_planted_fault(templates: Path) -> None:
    assert ("CKV_AWS_53", "AWS::S3::Bucket.Lake") in failures(checkov(templates / "faulty.yaml"))


def checkov(template: Path) -> Any:
    arguments = ["--framework", "cloudformation", "--skip-download", "--compact", "--quiet", "--output", "json"]
    return json.loads(run(tool("checkov"), "--file", template, *arguments))


def failures(report: Any) -> set[tuple[str, str]]:
    return {(check["check_id"], check["resource"]) for check in report["results"]["failed_checks"]}


def test_parliament_knows_every_action_and_the_form_of_its_resources() -> None:
    policies = {
        f"{role.name}-{part}": policy
        for role in roles(full()).values()
        for part, policy in policies_of(role, NAMES).items()
    }
    statement = {"Effect": "Allow", "Action": ["s3:GetObjects"], "Resource": ["arn:aws:s3:::stocks/*"]}
    mismatch = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::stocks"]}
    policies["faulty"] = {"Version": "2012-10-17", "Statement": [statement]}
    policies["mismatch"] = {"Version": "2012-10-17", "Statement": [mismatch]}
    found = json.loads(run(tool("python"), "-c", PARLIAMENT, given=json.dumps(policies)))
    assert found.pop("faulty") == ["UNKNOWN_ACTION"]
    assert found.pop("mismatch") == ["RESOURCE_MISMATCH s3:GetObject"]
    left = {name: set(issues) - SKIPPED_BY_PARLIAMENT.keys() for name, issues in found.items()}
    assert {name: issues for name, issues in left.items() if issues} == {}
