"""The files below deploy/ that are rendered from the settings and the asset graph. Not here: what is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stock_lakehouse.deployment.bundle import bundle
from stock_lakehouse.deployment.policies import bucket_policy, policies_of
from stock_lakehouse.deployment.production import dagster_yaml
from stock_lakehouse.deployment.rights import Role, roles
from stock_lakehouse.deployment.template import template

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

POLICIES, TEMPLATE, BUNDLE, INSTANCE = "policies", "lakehouse.yaml", "databricks.yml", "dagster.yaml"
NOTE = "# Rendered by `stock-lakehouse deploy render`: change the settings or the graph, and render again.\n"


def rendered(settings: Settings, known: Mapping[str, Role] | None = None) -> dict[str, str]:
    """Every rendered file by its path below deploy/. Raises DeploymentError, as `roles` does.

    `known`: the roles, if they are at hand.
    """
    known = roles(settings) if known is None else known
    policies = {
        f"{role.name}-{part}": policy for role in known.values() for part, policy in policies_of(role).items()
    } | {"bucket": bucket_policy()}
    files = {f"{POLICIES}/{name}.json": json.dumps(policy, indent=1) + "\n" for name, policy in policies.items()}
    files[TEMPLATE] = NOTE + as_yaml(template(settings, known))
    files[INSTANCE] = dagster_yaml(settings)
    if settings.engine == "databricks":
        files[BUNDLE] = NOTE + as_yaml(bundle(settings))
    return dict(sorted(files.items()))


def as_yaml(value: Any) -> str:
    """`value` as YAML, in its own order."""
    import yaml

    # A copy in which nothing is shared: of what is, YAML would make aliases, which CloudFormation refuses.
    unshared = json.loads(json.dumps(value))
    # The one in C writes the same text in a fifth of the time, and is not in every build of PyYAML.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(unshared, Dumper=dumper, sort_keys=False, allow_unicode=True, width=130))


def differences(files: dict[str, str], folder: Path) -> list[str]:
    """The paths below `folder` that differ from `files`, are missing, or are not rendered any more."""
    there = {path.relative_to(folder).as_posix() for path in (folder / POLICIES).glob("*.json")}
    bundle_file = folder / BUNDLE
    if bundle_file.is_file() and bundle_file.read_text(encoding="utf-8").startswith(NOTE):
        there.add(BUNDLE)
    differing = [path for path, text in files.items() if not _is(folder / path, text)]
    return sorted({*differing, *(there - files.keys())})


def write(files: dict[str, str], folder: Path) -> list[str]:
    """Write `files` below `folder`, and remove those that are not rendered any more; return the paths that changed."""
    changed = differences(files, folder)
    for path in changed:
        target = folder / path
        if path in files:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(files[path], encoding="utf-8")
        else:
            target.unlink()
    return changed


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text
