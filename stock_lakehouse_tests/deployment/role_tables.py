"""`python -m stock_lakehouse_tests.deployment.role_tables`: writes the tables of roles of the documentation from the roles.

Here: how a role becomes a line. Not here: what a role may do, which deployment/ derives.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from stock_lakehouse.deployment.places import outermost
from stock_lakehouse.deployment.policies import UNASKED
from stock_lakehouse.deployment.rights import Role, roles
from stock_lakehouse.lake.lease import SUFFIX
from stock_lakehouse_tests.deployment.stacks import full

DOCS = Path(__file__).parents[2] / "docs"
OVERVIEW, DOCUMENT = DOCS / "deployment.md", DOCS / "deployment-rights.md"
MARKS = re.compile(r"(?<=<!-- roles -->\n).*?(?=<!-- end of roles -->)", re.DOTALL)


def written(document: Path) -> str:
    """The text of OVERVIEW or DOCUMENT with its tables of roles as they are now."""
    found = roles(full()).values()
    made = overview(found) if document == OVERVIEW else tables(found)
    return MARKS.sub(lambda _: made, document.read_text(encoding="utf-8"))


def overview(found: Collection[Role]) -> str:
    """The roles with the folders of the lake and the services that they use."""
    lines = ["", "| role | who has it | reads also | changes | services |", "|---|---|---|---|---|"]
    for role in found:
        changed = _folders(role.places.write | role.places.create | role.places.delete)
        read = _folders(role.places.read) - changed
        services = {action.partition(":")[0] for right in role.services for action in right.actions}
        cells = (", ".join(sorted(cell)) or "nothing" for cell in (read, changed, services))
        lines.append(f"| `{role.name}` | {role.who} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", ""])


def _folders(places: Iterable[str]) -> set[str]:
    """The first folders of places, as code; without the leases, which whoever changes a table takes."""
    return {f"`{place.split('/')[0]}`" for place in places if not place.endswith(SUFFIX)}


def tables(found: Collection[Role]) -> str:
    """The roles with their places; with their services; and the rights on `*`, each with its reason."""
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
    for document in (OVERVIEW, DOCUMENT):
        document.write_text(written(document), encoding="utf-8")
