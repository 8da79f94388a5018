"""What can be wrong with a deployment and is seen without an account: drift, and the assertions. Not here: what is deployed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stock_lakehouse.deployment.assertions import ASSERTIONS, Deployment
from stock_lakehouse.deployment.policies import bucket_policy, policies_of
from stock_lakehouse.deployment.render import differences, rendered
from stock_lakehouse.deployment.rights import Role, roles
from stock_lakehouse.deployment.template import template
from stock_lakehouse.diagnosis import Diagnosis

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

NAMED = 3  # faults that a line names


def examine(settings: Settings, folder: Path) -> Iterator[Diagnosis]:
    """Check what is rendered in `folder` for `settings`. Raises DeploymentError if nothing can be rendered."""
    known = roles(settings)
    files = rendered(settings, known)
    if changed := differences(files, folder):
        what = f"{', '.join(changed)}: not what settings and graph give; run `stock-lakehouse deploy render`"
        yield Diagnosis("drift", "broken", what)
    else:
        yield Diagnosis("drift", "ok", f"{len(files)} files are what settings and graph give")
    deployment = deployment_of(settings, known)
    for what, assertion in ASSERTIONS.items():
        faults = list(assertion(deployment))
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        if faults:
            yield Diagnosis(what, "broken", "; ".join(faults[:NAMED]) + more)
        else:
            yield Diagnosis(what, "ok", str(assertion.__doc__).splitlines()[0])


def deployment_of(settings: Settings, known: Mapping[str, Role]) -> Deployment:
    """What a deployment with `settings`, whose roles are `known`, is."""
    policies = {role.name: policies_of(role) for role in known.values()}
    return Deployment(known, policies, bucket_policy(), template(settings, known))
