"""databricks.yml: its resources as the bundle's own types, its variables and references, and what its cluster policy admits."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from stock_lakehouse.databricks_jobs import check
from stock_lakehouse.deployment.bundle import bundle, policy, wheel_in_production
from stock_lakehouse.deployment.rights import DeploymentError
from stock_lakehouse.engines.databricks import WHEEL
from stock_lakehouse.settings import Databricks, Settings
from stock_lakehouse_tests.deployment.tools import tool

Bundle = dict[str, Any]
LAKE = "s3://prices/lake"
# Of a bundle, by kind of resource: the module and class of databricks-bundles that a resource has to be.
TYPED = """
import importlib, json, sys

TYPES = {
    "clusters": "Cluster", "cluster_policies": "ClusterPolicy", "jobs": "Job", "schemas": "Schema", "volumes": "Volume",
}

def merged(base, over):
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}

def faults(bundle):
    for target, its in bundle["targets"].items():
        for kind, resources in merged(bundle["resources"], its.get("resources", {})).items():
            of_kind = getattr(importlib.import_module("databricks.bundles." + kind), TYPES[kind])
            for name, resource in resources.items():
                try:
                    of_kind.from_dict(resource)
                except (TypeError, ValueError) as error:
                    yield f"{target}: {kind}.{name}: {error}"

json.dump([list(faults(bundle)) for bundle in json.load(sys.stdin)], sys.stdout)
"""


def on_databricks(lake: str | Path = LAKE, **databricks: Any) -> Settings:
    """Settings with the engine Databricks, on a cluster if nothing else is said."""
    options = {"cluster_id": "sessions", **databricks} if "serverless" not in databricks else databricks
    return Settings(lake_root=lake, last_date=date(2023, 9, 21), engine="databricks", databricks=Databricks(**options))


def faults_of(*bundles: Bundle) -> list[list[str]]:
    """What the types of databricks-bundles say is wrong, of each bundle."""
    python = tool("python")
    done = subprocess.run([python, "-c", TYPED], input=json.dumps(bundles), capture_output=True, text=True, check=True)
    found: list[list[str]] = json.loads(done.stdout)
    return found


def sessions(bundle_: Bundle) -> dict[str, Any]:
    cluster: dict[str, Any] = bundle_["resources"]["clusters"]["sessions"]
    return cluster


def misspell_a_field(it: Bundle) -> None:
    sessions(it)["autotermination_minuts"] = sessions(it).pop("autotermination_minutes")


def name_no_availability(it: Bundle) -> None:
    sessions(it)["aws_attributes"]["availability"] = "SPOT_WITH_FALL_BACK"


def leave_out_the_catalog(it: Bundle) -> None:
    del it["resources"]["volumes"]["messages"]["catalog_name"]


def give_a_number_as_text(it: Bundle) -> None:
    it["resources"]["jobs"]["check"]["tasks"][0]["timeout_seconds"] = "half an hour"


def grant_what_a_policy_has_not(it: Bundle) -> None:
    it["targets"]["production"]["resources"]["cluster_policies"]["lakehouse"]["permissions"][0]["level"] = "CAN_RESTART"


PLANTED = {
    misspell_a_field: "clusters.sessions: Unexpected field 'autotermination_minuts'",
    name_no_availability: "'SPOT_WITH_FALL_BACK' is not a valid AwsAvailability",
    leave_out_the_catalog: "missing 1 required keyword-only argument: 'catalog_name'",
    give_a_number_as_text: "invalid literal for int() with base 10: 'half an hour'",
    grant_what_a_policy_has_not: "'CAN_RESTART' is not a valid ClusterPolicyPermissionLevel",
}


@pytest.mark.deploy
def test_every_resource_is_of_its_type_and_five_planted_errors_are_caught() -> None:
    sound = [
        bundle(on_databricks()),
        bundle(on_databricks(messages="s3://messages", wheel=WHEEL)),
        bundle(on_databricks(Path("/Volumes/main/stocks/lake"), serverless=True)),
    ]
    planted = [copy.deepcopy(sound[0]) for _ in PLANTED]
    for plant, it in zip(PLANTED, planted, strict=True):
        plant(it)
    found = faults_of(*sound, *planted)
    assert found[: len(sound)] == [[], [], []]
    for faults, (plant, expected) in zip(found[len(sound) :], PLANTED.items(), strict=True):
        assert faults, plant.__name__
        assert all(expected in fault for fault in faults)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


@pytest.mark.parametrize(
    "settings",
    [
        on_databricks(),
        on_databricks(messages="s3://messages", wheel=WHEEL),
        on_databricks(Path("/Volumes/main/stocks/lake"), serverless=True),
    ],
    ids=["volume", "bucket", "serverless"],
)
def test_each_reference_of_the_bundle_leads_somewhere_and_each_variable_is_used(settings: Settings) -> None:
    made = bundle(settings)
    references = {it for text in texts(made) for it in re.findall(r"\$\{([^}]+)\}", text)}
    variables = {it.removeprefix("var.") for it in references if it.startswith("var.")}
    assert variables == made["variables"].keys()
    for reference in (it for it in references if it.startswith("resources.")):
        _, kind, name, _ = reference.split(".")
        assert name in made["resources"][kind]
    others = {it for it in references if not it.startswith(("var.", "resources."))}
    assert others == {"bundle.name", "bundle.target", "workspace.current_user.userName"}


def test_no_name_of_a_lake_an_account_or_a_workspace_is_in_the_bundle() -> None:
    made = json.dumps(
        bundle(on_databricks(host="https://prices.cloud.databricks.com", cluster_id="1124-163500-abcdefgh"))
    )
    assert not re.search(r"prices|1124-163500|arn:aws|\d{12}|\b(us|eu|ap)-[a-z]+-\d\b", made)


def test_the_volume_is_the_one_that_the_settings_name_for_messages() -> None:
    made = bundle(on_databricks(messages="/Volumes/finance/lakes/pipes/dagster", wheel=WHEEL))
    assert made["variables"]["catalog"]["default"] == "finance"
    assert made["variables"]["schema"]["default"] == "lakes"
    assert made["resources"]["volumes"]["messages"]["name"] == "pipes"
    with_bucket = bundle(on_databricks(messages="s3://messages", wheel=WHEEL))
    assert not with_bucket["resources"].keys() & {"schemas", "volumes"}
    with pytest.raises(
        DeploymentError, match=r"databricks\.messages: /Volumes/finance/lakes names no volume; set it to"
    ):
        bundle(on_databricks(messages="/Volumes/finance/lakes", wheel=WHEEL))


def test_the_clusters_are_those_of_the_settings_for_jobs() -> None:
    cluster = {"spark_version": "18.0.x-scala2.13", "node_type_id": "i4i.large"}
    variables = bundle(on_databricks(wheel=WHEEL, job_cluster=cluster))["variables"]
    assert variables["runtime"]["default"] == "18.0.x-scala2.13"
    assert variables["node_type"]["default"] == "i4i.large"


def test_the_wheel_that_is_built_is_the_one_that_clusters_jobs_and_settings_name() -> None:
    made = bundle(on_databricks())
    built = f"./dist/{WHEEL}"
    assert made["artifacts"]["wheel"]["files"] == [{"source": built}]
    assert sessions(made)["libraries"] == [{"whl": built}]
    check = made["resources"]["jobs"]["check"]
    assert check["environments"][0]["spec"]["dependencies"] == [built]
    # `databricks bundle deploy` uploads to `.internal` below the artifacts of the bundle's root.
    root = made["targets"]["production"]["workspace"]["root_path"]
    for reference, value in (
        ("var.principal", "app-1"),
        ("bundle.name", "stock_lakehouse"),
        ("bundle.target", "production"),
    ):
        root = root.replace("${" + reference + "}", value)
    assert wheel_in_production("app-1") == f"{root}/artifacts/.internal/{WHEEL}"


def test_the_job_check_names_an_entry_point_that_the_wheel_has() -> None:
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    for task in bundle(on_databricks())["resources"]["jobs"]["check"]["tasks"]:
        wanted = task["python_wheel_task"]
        assert wanted["package_name"] == project["name"].replace("-", "_")
        entry = EntryPoint("", project["entry-points"]["packages"][wanted["entry_point"]], "")
        assert entry.load() is check.main


def test_serverless_compute_with_a_lake_on_s3_is_refused_with_the_reason() -> None:
    # The settings refuse it when they are read; these were changed afterwards.
    settings = on_databricks(Path("/Volumes/main/stocks/lake"), serverless=True).model_copy(update={"lake_root": LAKE})
    with pytest.raises(
        DeploymentError, match=f"has no instance profile, so it cannot reach {LAKE}; set databricks.cluster_id"
    ):
        bundle(settings)


def test_a_serverless_bundle_has_no_cluster_and_asks_for_no_instance_profile() -> None:
    made = bundle(on_databricks(Path("/Volumes/main/stocks/lake"), serverless=True))
    assert made["resources"].keys() == {"jobs", "schemas", "volumes"}
    assert [task["task_key"] for task in made["resources"]["jobs"]["check"]["tasks"]] == ["serverless"]
    assert not made["variables"].keys() & {"instance_profile", "region"}


def refusals(definition: Mapping[str, Any], cluster: Mapping[str, Any]) -> list[str]:
    """The attributes of a cluster that a policy refuses, by the rules of the policy definition language that are used here."""
    flat = {
        (f"{key}.{inner}" if isinstance(value, Mapping) else key): (
            value[inner] if isinstance(value, Mapping) else value
        )
        for key, value in cluster.items()
        for inner in (value if isinstance(value, Mapping) else [""])
    }
    checks: dict[str, Callable[[Any, Any], bool]] = {
        "fixed": lambda rule, value: value == rule["value"],
        "allowlist": lambda rule, value: value in rule["values"],
        "regex": lambda rule, value: re.fullmatch(rule["pattern"], value) is not None,
        "range": lambda rule, value: rule.get("minValue", value) <= value <= rule.get("maxValue", value),
    }
    found = []
    for attribute, rule in definition.items():
        # A fixed value is filled in where it is left out; so is a default with apply_policy_default_values.
        value = flat.get(attribute, rule.get("value", rule.get("defaultValue")))
        if value is None:
            found += [] if rule.get("isOptional") else [attribute]
        elif not checks[rule["type"]](rule, value):
            found.append(attribute)
    return found


GIVEN = {
    "principal": "app-1",
    "instance_profile": "arn",
    "region": "eu-west-1",
    "runtime": "17.3.x-scala2.13",
    "node_type": "m6id.xlarge",
    "workers": 1,
    "most_workers": 16,
}
JOB = {"spark_version": "17.3.x-scala2.13", "node_type_id": "i3.xlarge", "num_workers": 4}


def filled(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: filled(inner) for key, inner in value.items()}
    reference = re.fullmatch(r"\$\{var\.(\w+)\}", value) if isinstance(value, str) else None
    return GIVEN[reference[1]] if reference else value


def test_the_policy_admits_the_cluster_for_sessions_and_those_of_jobs_and_streams() -> None:
    definition = filled(policy())
    assert refusals(definition, filled(sessions(bundle(on_databricks())))) == []
    assert refusals(definition, JOB) == []  # one for each job; it ends with the job
    stream = {**JOB, "num_workers": 2, "aws_attributes": {"availability": "ON_DEMAND", "first_on_demand": 3}}
    assert refusals(definition, stream) == []  # runs for days, and nothing in the policy ends it


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"data_security_mode": "USER_ISOLATION"}, "data_security_mode"),
        ({"single_user_name": "somebody@example.com"}, "single_user_name"),
        ({"spark_version": "16.4.x-scala2.13"}, "spark_version"),
        ({"aws_attributes": {"instance_profile_arn": "another"}}, "aws_attributes.instance_profile_arn"),
        ({"aws_attributes": {"availability": "SPOT"}}, "aws_attributes.availability"),
        ({"aws_attributes": {"first_on_demand": 0}}, "aws_attributes.first_on_demand"),
        ({"spark_env_vars": {"AWS_REGION": "us-east-1"}}, "spark_env_vars.AWS_REGION"),
        ({"num_workers": 17}, "num_workers"),
        ({"autoscale": {"min_workers": 1, "max_workers": 17}}, "autoscale.max_workers"),
        ({"autotermination_minutes": 0}, "autotermination_minutes"),
    ],
)
def test_the_policy_refuses_what_would_fail_or_cost(change: dict[str, Any], refused: str) -> None:
    assert refusals(filled(policy()), {**JOB, **change}) == [refused]


def test_a_deployment_without_databricks_has_no_bundle() -> None:
    from stock_lakehouse.deployment.render import rendered

    assert "databricks.yml" in rendered(on_databricks())
    assert "databricks.yml" not in rendered(on_databricks().model_copy(update={"engine": "embedded"}))
