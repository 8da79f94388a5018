"""What can be wrong with a deployment and is seen without an account: drift, sizes. Not here: what is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stock_lakehouse.deployment.policies import LIMIT, LONGEST, policies_of, size
from stock_lakehouse.deployment.render import differences, rendered
from stock_lakehouse.deployment.rights import roles
from stock_lakehouse.diagnosis import Diagnosis

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings


def examine(settings: Settings, folder: Path) -> Iterator[Diagnosis]:
    """Check what is rendered in `folder` for `settings`. Raises DeploymentError if nothing can be rendered."""
    files = rendered(settings)
    if changed := differences(files, folder):
        yield Diagnosis(
            "drift", "broken", f"{', '.join(changed)}: not what the graph gives; run `stock-lakehouse deploy render`"
        )
    else:
        yield Diagnosis("drift", "ok", f"{len(files)} files are what settings and graph give")
    sizes = {
        f"{role.name}-{part}": size(policy)
        for role in roles(settings).values()
        for part, policy in policies_of(role, LONGEST).items()
    }
    name, characters = max(sizes.items(), key=lambda item: item[1])
    yield Diagnosis(
        "sizes",
        "ok" if characters <= LIMIT else "broken",
        f"{len(sizes)} policies, the longest {name}: {characters:,} of {LIMIT:,} characters with the longest names",
    )
