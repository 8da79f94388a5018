"""The settings of QuickSight, checked together."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stock_lakehouse.settings import Settings

SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:redshift"
ROLE = "arn:aws:iam::123456789012:role/reader"
LAKE: dict[str, Any] = {"lake_root": "s3://bucket/lake", "catalog": "glue", "dashboard": "quicksight"}
WORKGROUP: dict[str, Any] = {"warehouse": "redshift", "redshift": {"workgroup": "stocks"}}
CLUSTER: dict[str, Any] = {"warehouse": "redshift", "redshift": {"cluster": "stocks"}}


@pytest.mark.parametrize(
    ("more", "quicksight", "error"),
    [
        ({}, {}, "quicksight.readers: nobody could see the dashboard"),
        ({}, {"readers": ("analysts",)}, "'analysts' is neither `user NAME` nor `group NAME`"),
        ({}, {"authors": ("role x",)}, "'role x' is neither"),
        ({}, {"readers": ("user ana",), "secret": SECRET}, "secret, vpc_connection: go with source = 'redshift' alone"),
        (
            WORKGROUP,
            {"readers": ("user ana",), "source": "redshift"},
            "quicksight.secret: needed with source = 'redshift'",
        ),
        (WORKGROUP, {"readers": ("user ana",), "source": "redshift", "role": ROLE}, "quicksight.secret: needed"),
        (
            CLUSTER,
            {"readers": ("user ana",), "source": "redshift", "role": ROLE, "secret": SECRET},
            "role, secret: set one",
        ),
        ({}, {"readers": ("user ana",), "source": "redshift"}, "quicksight.source: Redshift has no tables of the lake"),
        ({"catalog": "local"}, {"readers": ("user ana",)}, "quicksight.source: Athena reads the tables that Glue has"),
    ],
)
def test_what_does_not_go_together_is_named(more: dict[str, Any], quicksight: dict[str, Any], error: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Settings(**LAKE | more, quicksight=quicksight)
    assert error in str(raised.value)


@pytest.mark.parametrize(
    ("more", "quicksight"),
    [
        ({}, {"readers": ("user ana maria", "group analysts")}),
        ({}, {"authors": ("user ana",), "role": ROLE}),
        (WORKGROUP, {"readers": ("user ana",), "source": "redshift", "secret": SECRET}),
        (CLUSTER, {"readers": ("user ana",), "source": "redshift", "role": ROLE}),
    ],
)
def test_what_goes_together_is_taken(more: dict[str, Any], quicksight: dict[str, Any]) -> None:
    Settings(**LAKE | more, quicksight=quicksight)


def test_with_another_dashboard_nothing_is_demanded() -> None:
    Settings(quicksight={"source": "redshift"})
