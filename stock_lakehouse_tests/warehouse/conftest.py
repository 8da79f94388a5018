"""moto's S3 and Glue, a Redshift server over them, and a lake with a warehouse of each test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stock_lakehouse_tests import s3
from stock_lakehouse_tests.redshift_server import RedshiftServer, environment, redshift_server
from stock_lakehouse_tests.warehouse.lakes import WarehouseLake


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """The endpoint of a new moto server."""
    with s3.moto() as endpoint:
        yield endpoint


@pytest.fixture
def server(aws: str) -> Iterator[RedshiftServer]:
    """A Redshift of the test's own, to which this process's AWS_* variables lead."""
    with redshift_server(aws) as state, s3.variables(environment(state)):
        yield state


@pytest.fixture
def made(aws: str, server: RedshiftServer) -> Callable[..., WarehouseLake]:
    """Makes a lake in a bucket of its own, with its warehouse."""

    def make(**settings: Any) -> WarehouseLake:
        return WarehouseLake.new(aws, server, **settings)

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
