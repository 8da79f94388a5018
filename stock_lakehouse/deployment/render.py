"""The files below deploy/ that are rendered from the settings and the asset graph. Not here: what is in them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stock_lakehouse.deployment.policies import policies_of
from stock_lakehouse.deployment.rights import roles

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

POLICIES = "policies"
NOTE = "# Rendered by `stock-lakehouse deploy render`: change the settings or the graph, and render again.\n"


def rendered(settings: Settings) -> dict[str, str]:
    """Every rendered file by its path below deploy/. Raises DeploymentError, as `roles` does."""
    files = {
        f"{POLICIES}/{role.name}-{part}.json": json.dumps(policy, indent=1) + "\n"
        for role in roles(settings).values()
        for part, policy in policies_of(role).items()
    }
    for path, module, name in (
        ("lakehouse.yaml", "template", "template"),
        ("databricks.yml", "bundle", "bundle"),
        ("dagster.yaml", "production", "dagster_yaml"),
    ):
        if module == "bundle" and settings.engine != "databricks":
            continue
        if importlib.util.find_spec(f"stock_lakehouse.deployment.{module}"):
            made: Any = getattr(importlib.import_module(f"stock_lakehouse.deployment.{module}"), name)(settings)
            files[path] = made if isinstance(made, str) else NOTE + as_yaml(made)
    return dict(sorted(files.items()))


def as_yaml(value: Any) -> str:
    """`value` as YAML, in its own order."""
    import yaml

    class Plain(yaml.SafeDumper):
        """Without anchors and aliases, which CloudFormation refuses."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    return str(yaml.dump(value, Dumper=Plain, sort_keys=False, allow_unicode=True, width=130))


def differences(files: dict[str, str], folder: Path) -> list[str]:
    """The paths below `folder` that differ from `files`, are missing, or are policies of no role any more."""
    there = {path.relative_to(folder).as_posix() for path in (folder / POLICIES).glob("*.json")}
    differing = [path for path, text in files.items() if not _is(folder / path, text)]
    return sorted({*differing, *(there - files.keys())})


def write(files: dict[str, str], folder: Path) -> list[str]:
    """Write `files` below `folder`, and remove policies of roles that are gone; return the paths that changed."""
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
