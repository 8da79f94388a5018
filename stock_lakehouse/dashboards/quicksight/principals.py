"""Who may use QuickSight: the edition of the account, readers and authors, and the actions that each is allowed.

Not here: the calls that grant and revoke (provisioning.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stock_lakehouse.dashboards.quicksight.client import EditionError, PrincipalError, QuickSight
from stock_lakehouse.sql.engine import PermissionMissingError

if TYPE_CHECKING:
    from stock_lakehouse.settings import QuickSight as QuickSightSettings

Permissions = Mapping[str, frozenset[str]]  # the actions of each principal


def _actions(*names: str) -> frozenset[str]:
    return frozenset(f"quicksight:{name}" for name in names)


# The sets of actions that QuickSight's console calls viewer and owner of a dashboard, and user of a data set.
READER = _actions("DescribeDashboard", "ListDashboardVersions", "QueryDashboard")
AUTHOR = READER | _actions(
    "UpdateDashboard",
    "DeleteDashboard",
    "UpdateDashboardPublishedVersion",
    "DescribeDashboardPermissions",
    "UpdateDashboardPermissions",
)
USER_OF_DATA = _actions(
    "DescribeDataSet", "DescribeDataSetPermissions", "PassDataSet", "DescribeIngestion", "ListIngestions"
)


def check_edition(quicksight: QuickSight) -> str | None:
    """The edition of the account; None if the credentials may not ask for it.

    Raises EditionError if there is no subscription, or one whose edition has no dashboards by API.
    """
    try:
        found = quicksight.find_identity("describe_account_subscription", "QuickSight")
    except PermissionMissingError:
        return None
    account: Mapping[str, Any] = (found or {}).get("AccountInfo", {})
    if found is None or str(account.get("AccountSubscriptionStatus", "")).startswith("UNSUBSCRIBE"):
        raise EditionError(
            f"QuickSight: account {quicksight.account} has no subscription; sign up for the Enterprise edition in the console, "
            "or set dashboard to local"
        )
    if account.get("Edition") == "STANDARD":
        raise EditionError(
            "QuickSight: the account is of the Standard edition, which has no dashboards by API; upgrade it to Enterprise, or "
            "set dashboard to local"
        )
    return str(account.get("Edition"))


def principals(quicksight: QuickSight, settings: QuickSightSettings) -> tuple[list[str], list[str]]:
    """The ARNs of the readers, and of the authors. Raises PrincipalError for those that do not exist."""
    found: dict[str, str | None] = {}
    for name in (*settings.readers, *settings.authors):
        if name not in found:
            found[name] = _arn_of(quicksight, settings.namespace, name)
    if missing := [name for name, arn in found.items() if arn is None]:
        raise PrincipalError(
            f"quicksight: there is no {', no '.join(missing)} in the namespace {settings.namespace}; correct "
            "quicksight.readers and quicksight.authors, or add them in QuickSight"
        )
    return [str(found[name]) for name in settings.readers], [str(found[name]) for name in settings.authors]


def _arn_of(quicksight: QuickSight, namespace: str, principal: str) -> str | None:
    """The ARN of `user NAME` or `group NAME`; None if it does not exist."""
    kind, _, name = principal.partition(" ")
    if kind == "user":
        answer = quicksight.find_identity("describe_user", principal, Namespace=namespace, UserName=name)
        return None if answer is None else str(answer["User"]["Arn"])
    answer = quicksight.find_identity("describe_group", principal, Namespace=namespace, GroupName=name)
    return None if answer is None else str(answer["Group"]["Arn"])


def differences(
    present: Permissions, wanted: Permissions
) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
    """What is to be granted, and what is to be revoked, so that exactly `wanted` is allowed."""
    none: frozenset[str] = frozenset()
    grants = {who: actions for who, actions in wanted.items() if actions - present.get(who, none)}
    revokes = {who: actions - wanted.get(who, none) for who, actions in present.items()}
    return grants, {who: actions for who, actions in revokes.items() if actions}


def allowed(answer: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """The permissions in an answer of QuickSight."""
    return {entry["Principal"]: frozenset(entry["Actions"]) for entry in answer.get("Permissions", [])}


def entries(permissions: Permissions) -> list[dict[str, Any]]:
    """Permissions as a request has them."""
    return [{"Principal": who, "Actions": sorted(actions)} for who, actions in permissions.items()]


def short(principals: Iterable[str]) -> str:
    """ARNs without the account: `user/default/ana, group/default/analysts`."""
    return ", ".join(principal.rpartition(":")[2] for principal in principals)


def parts(items: Sequence[Any], size: int = 50) -> list[Sequence[Any]]:
    """`items` in pieces that a call takes: its limits are 64 and 100 permissions."""
    return [items[start : start + size] for start in range(0, len(items), size)]
