"""`python -m stock_lakehouse_tests.deployment.role_tables`: writes the tables of roles of the documentation from the roles.

Here: how a role becomes a line. Not here: what a role may do, which deployment/ derives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from stock_lakehouse.deployment.places import outermost
from stock_lakehouse.deployment.policies import UNASKED
from stock_lakehouse.deployment.rights import Role, roles
from stock_lakehouse.lake.lease import SUFFIX
from stock_lakehouse_tests.deployment.stacks import full

DOCUMENT = Path(__file__).parents[2] / "docs" / "deployment.d1.md"
MARKS = re.compile(r"(?<=<!-- roles -->\n).*?(?=<!-- end of roles -->)", re.DOTALL)


def written(text: str) -> str:
    """The document `text` with the tables as they are now."""
    return MARKS.sub(lambda _: tables(), text)


def tables() -> str:
    """The roles with their places; with their services; and the rights on `*`, each with its reason."""
    found = roles(full()).values()
    lines = ["", "| role | who has it | reads also | writes | deletes |", "|---|---|---|---|---|"]
    for role in found:
        given = role.places
        changed = given.write | given.create
        cells = (f"`{role.name}`", role.who, _named(given.read - changed), _named(changed), _named(given.delete))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| role | at services of AWS |", "|---|---|"]
    lines += [f"| `{role.name}` | {_services(role)} |" for role in found if role.services]
    lines += ["", "| allowed on `*`, or though no run asks for it | why |", "|---|---|"]
    reasons = {
        action: right.reason for role in found for right in role.services if right.reason for action in right.actions
    }
    lines += [f"| `{action}` | {reason} |" for action, reason in sorted({**reasons, **UNASKED}.items())]
    return "\n".join([*lines, "", ""])


def _named(places: Iterable[str]) -> str:
    """Places for people; leases by their number."""
    found = outermost(places)
    leases = sum(place.endswith(SUFFIX) for place in found)
    names = [f"`{place}`" for place in found if not place.endswith(SUFFIX)]
    counted = [] if not leases else [f"{leases} leases" if leases > 1 else "a lease"]
    return ", ".join([*names, *counted]) or "nothing"


def _services(role: Role) -> str:
    services: dict[str, list[str]] = {}
    for right in role.services:
        for action in right.actions:
            service, _, name = action.partition(":")
            services.setdefault(service, []).append(name)
    return "; ".join(f"{service}: {', '.join(dict.fromkeys(names))}" for service, names in services.items())


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
