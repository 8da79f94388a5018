"""What can be wrong with a deployment and is seen without an account: drift, and the assertions. Not here: what is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stock_lakehouse.deployment.assertions import ASSERTIONS, Deployment
from stock_lakehouse.deployment.policies import bucket_policy, policies_of
from stock_lakehouse.deployment.render import differences, rendered
from stock_lakehouse.deployment.rights import roles
from stock_lakehouse.deployment.template import template
from stock_lakehouse.diagnosis import Diagnosis

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

NAMED = 3  # faults that a line names


def examine(settings: Settings, folder: Path) -> Iterator[Diagnosis]:
    """Check what is rendered in `folder` for `settings`. Raises DeploymentError if nothing can be rendered."""
    files = rendered(settings)
    if changed := differences(files, folder):
        what = f"{', '.join(changed)}: not what settings and graph give; run `stock-lakehouse deploy render`"
        yield Diagnosis("drift", "broken", what)
    else:
        yield Diagnosis("drift", "ok", f"{len(files)} files are what settings and graph give")
    deployment = deployment_of(settings)
    for what, assertion in ASSERTIONS.items():
        faults = list(assertion(deployment))
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        if faults:
            yield Diagnosis(what, "broken", "; ".join(faults[:NAMED]) + more)
        else:
            yield Diagnosis(what, "ok", str(assertion.__doc__).splitlines()[0])


def deployment_of(settings: Settings) -> Deployment:
    """What a deployment with `settings` is."""
    found = roles(settings)
    policies = {role.name: policies_of(role) for role in found.values()}
    return Deployment(found, policies, bucket_policy(settings), template(settings))
