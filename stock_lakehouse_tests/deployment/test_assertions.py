"""What holds for every deployment: each assertion is silent about what is deployed, and catches a planted fault."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from stock_lakehouse.deployment.assertions import ASSERTIONS, Deployment
from stock_lakehouse.deployment.check import deployment_of
from stock_lakehouse.deployment.rights import roles
from stock_lakehouse.settings import Settings
from stock_lakehouse_tests.deployment.stacks import full, least

Fault = Callable[[Deployment], None]


@cache
def deployed_with(settings_of: Callable[[], Settings]) -> Deployment:
    settings = settings_of()
    return deployment_of(settings, roles(settings))


def planted(fault: Fault) -> Deployment:
    """The deployment of deploy/, changed by `fault`."""
    deployed = deployed_with(full)
    copied = replace(
        deployed,
        policies=deepcopy(deployed.policies),
        bucket=deepcopy(deployed.bucket),
        template=deepcopy(deployed.template),
    )
    fault(copied)
    return copied


def _statement(policy: str, sid: str, change: Callable[[dict[str, Any]], None]) -> Fault:
    def fault(deployment: Deployment) -> None:
        role, _, part = policy.rpartition("-")
        [found] = [one for one in deployment.policies[role][part]["Statement"] if one["Sid"] == sid]
        change(found)

    return fault


def _of_bucket(sid: str, change: Callable[[dict[str, Any]], None]) -> Fault:
    def fault(deployment: Deployment) -> None:
        [found] = [one for one in deployment.bucket["Statement"] if one["Sid"] == sid]
        change(found)

    return fault


def _rule(rule: dict[str, Any]) -> Fault:
    def fault(deployment: Deployment) -> None:
        assert deployment.template is not None
        rules = deployment.template["Resources"]["Lake"]["Properties"]["LifecycleConfiguration"]["Rules"]
        rules.append({"Id": "planted", "Status": "Enabled", **rule})

    return fault


def _unlisted(policy: str, prefix: str) -> Fault:
    return _statement(
        policy, "List", lambda one: one["Condition"]["StringLike"]["s3:prefix"].remove(f"${{Prefix}}/{prefix}")
    )


FAULTS: dict[str, tuple[str, Fault]] = {
    "a policy too long": ("sizes", _statement("run-write", "Write", lambda one: one["Resource"].extend(["x" * 200] * 30))),
    "an action with a star": ("stars", _statement("run-write", "Write", lambda one: one["Action"].append("s3:Put*"))),
    "all actions of a service": ("stars", _statement("reader-read", "Read", lambda one: one.update(Action=["s3:*"]))),
    "a resource that is everything": ("stars", _statement("reader-read", "Read", lambda one: one.update(Resource=["*"]))),
    "every key of the lake": (
        "stars",
        _statement("reader-read", "Read", lambda one: one["Resource"].append("arn:${AWS::Partition}:s3:::${Lake}/*")),
    ),
    "a star without a reason": ("stars", _statement("stream-services", "Stream", lambda one: one.update(Resource=["*"]))),
    "a read without its listing": (
        "reads",
        _unlisted("run-list", "raw/stocks_daily/*"),
    ),
    "a lease without its listing": (
        "reads",
        _unlisted("job-list", ".locks/restatements.lease"),
    ),
    "a listing of the root": (
        "listings",
        _statement("upkeep-list", "List", lambda one: one["Condition"]["StringLike"]["s3:prefix"].append("${Prefix}/")),
    ),
    "a listing of the bucket": ("listings", _statement("dagster-list", "List", lambda one: one.pop("Condition"))),
    "a key by any service": (
        "key",
        _statement("run-list", "Key", lambda one: one["Condition"]["StringEquals"].pop("kms:ViaService")),
    ),
    "a key for any bucket": (
        "key",
        _statement("run-list", "Key", lambda one: one["Condition"]["StringEquals"].pop("kms:EncryptionContext:aws:s3:arn")),
    ),
    "a key for one object": (
        "key",
        _statement(
            "run-list",
            "Key",
            lambda one: one["Condition"]["StringEquals"].update({"kms:EncryptionContext:aws:s3:arn": "arn:aws:s3:::${Lake}/*"}),
        ),
    ),
    "every key": ("key", _statement("reader-list", "Key", lambda one: one.update(Resource=["*"]))),
    "TLS that is allowed": ("TLS", _of_bucket("TlsOnly", lambda one: one.update(Effect="Allow"))),
    "TLS the wrong way round": (
        "TLS",
        _of_bucket("TlsOnly", lambda one: one.update(Condition={"Bool": {"aws:SecureTransport": "true"}})),
    ),
    "TLS for objects alone": ("TLS", _of_bucket("TlsOnly", lambda one: one["Resource"].pop(0))),
    "TLS for the bucket alone": ("TLS", _of_bucket("TlsOnly", lambda one: one["Resource"].pop(1))),
    "TLS for reads alone": ("TLS", _of_bucket("TlsOnly", lambda one: one.update(Action="s3:GetObject"))),
    "landed files that are replaced": ("landed files", _of_bucket("LandedFilesAreNew", lambda one: one.pop("Condition"))),
    "landed files, for some": ("landed files", _of_bucket("LandedFilesAreNew", lambda one: one.update(Principal={"AWS": "x"}))),
    "no plain write anywhere": (
        "landed files",
        _of_bucket("LandedFilesAreNew", lambda one: one.update(Resource=["arn:${AWS::Partition}:s3:::${Lake}/*"])),
    ),
    "objects of a table that end": ("lifecycle", _rule({"Prefix": {"Fn::Sub": "${Prefix}/curated/"}, "ExpirationInDays": 400})),
    "all objects that end": ("lifecycle", _rule({"ExpirationInDays": 4000})),
    "objects of raw that move": (
        "lifecycle",
        _rule({"Prefix": {"Fn::Sub": "${Prefix}/raw/"}, "Transitions": [{"StorageClass": "GLACIER"}]}),
    ),
    "objects below a table that end": (
        "lifecycle",
        _rule({"Prefix": {"Fn::Sub": "${Prefix}/curated/stocks_daily/ticker=AAPL/"}, "ExpirationInDays": 30}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught_by_its_assertion(name: str) -> None:
    assertion, fault = FAULTS[name]
    [first, *_] = ASSERTIONS[assertion](planted(fault))
    assert ";" in first, "it says what to do"


@pytest.mark.parametrize("assertion", ASSERTIONS)
def test_what_is_deployed_has_no_fault(assertion: str) -> None:
    for settings_of in (full, least):
        assert list(ASSERTIONS[assertion](deployed_with(settings_of))) == []


def test_every_assertion_has_a_fault_that_it_catches() -> None:
    assert {assertion for assertion, _ in FAULTS.values()} == ASSERTIONS.keys()
