"""QuickSight as a Dagster resource: what is provisioned, over which lake. Not here: provisioning (dashboards/quicksight/)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.aws import Right
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.settings import Aws, QuickSight, Redshift

if TYPE_CHECKING:
    from stock_lakehouse.dashboards.quicksight.provisioning import Outcome
    from stock_lakehouse.settings import Settings


class QuickSightResource(dg.ConfigurableResource[Any]):
    """The dashboard on QuickSight.

    - quicksight, aws, redshift: the settings of these groups that differ from their defaults
    """

    lakehouse: LakehouseResource
    quicksight: dict[str, Any]
    aws: dict[str, Any]
    redshift: dict[str, Any]

    def rights(self) -> Sequence[Right]:
        """What provisioning needs."""
        from stock_lakehouse.dashboards.quicksight.rights import provisioning_rights

        return provisioning_rights(QuickSight(**self.quicksight), Aws(**self.aws), Redshift(**self.redshift))

    @classmethod
    def of(cls, settings: Settings, lakehouse: LakehouseResource) -> QuickSightResource:
        """The resource that `settings` describe."""
        return cls(
            lakehouse=lakehouse,
            quicksight=settings.quicksight.model_dump(exclude_defaults=True),
            aws=settings.aws.model_dump(exclude_defaults=True),
            redshift=settings.redshift.model_dump(exclude_defaults=True),
        )

    def provision(self, tell: Callable[[str], None]) -> Outcome:
        """Bring QuickSight to what the lake has; see `provisioning.provision`."""
        from stock_lakehouse.dashboards.quicksight.client import QuickSight as Client
        from stock_lakehouse.dashboards.quicksight.provisioning import provision
        from stock_lakehouse.dashboards.view import View

        groups = SimpleNamespace(
            quicksight=QuickSight(**self.quicksight), aws=Aws(**self.aws), redshift=Redshift(**self.redshift)
        )
        return provision(groups, View(self.lakehouse.lake), Client(), tell=tell)
