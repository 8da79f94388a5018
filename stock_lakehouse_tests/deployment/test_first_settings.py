"""What `init --aws` writes: settings from which a deployment is rendered before there is a bucket."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stock_lakehouse.cli import app
from stock_lakehouse.deployment.first_settings import AWS_TOML
from stock_lakehouse.instance.home import LAKEHOUSE_TOML
from stock_lakehouse.lake.storage import StorageError, storage_at
from stock_lakehouse.settings import load_settings


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_deployment_is_rendered_from_them_at_once() -> None:
    first = call("init", "--aws")
    assert first.exit_code == 0, first.output
    assert "stock-lakehouse deploy render" in first.output
    assert "fill in the stack's output LakeRoot" in first.output
    settings = load_settings()
    assert (settings.catalog, settings.query_engine, settings.engine) == ("glue", "athena", "embedded")
    rendered = call("deploy", "render")
    assert rendered.exit_code == 0, rendered.output
    assert list(Path("deploy/policies").glob("run-*.json"))
    assert call("deploy", "render", "--check").exit_code == 0
    assert "amzn-s3-demo" not in "".join(path.read_text() for path in Path("deploy").rglob("*.*"))
    assert {path.name for path in Path().iterdir()} == {"lakehouse.toml", "deploy"}


def test_what_is_there_is_kept() -> None:
    own = AWS_TOML.replace('"AAPL", ', "")
    Path("lakehouse.toml").write_text(own)
    result = call("init", "--aws")
    assert result.exit_code == 0
    assert "kept, because it exists" in result.output
    assert Path("lakehouse.toml").read_text() == own


def test_settings_of_a_lake_in_a_folder_are_kept_and_refused() -> None:
    own = LAKEHOUSE_TOML.replace('"AAPL", ', "")
    Path("lakehouse.toml").write_text(own)
    result = call("init", "--aws")
    assert result.exit_code == 2
    assert "is a folder, and a deployment needs a lake on S3; call this in another folder" in result.output
    assert Path("lakehouse.toml").read_text() == own


def test_in_a_clone_they_replace_the_untouched_ones_of_the_sample_and_are_those_that_are_rendered() -> None:
    shutil.copytree(Path(__file__).parents[2] / "deploy", "deploy")
    Path("lakehouse.toml").write_text(LAKEHOUSE_TOML)
    assert call("deploy", "render").exit_code == 0
    every_service = set(Path("deploy/policies").iterdir())
    assert call("init", "--aws").exit_code == 0
    assert Path("lakehouse.toml").read_text() == AWS_TOML
    assert call("deploy", "render").exit_code == 0
    assert every_service > set(Path("deploy/policies").iterdir())  # no crawler, no Redshift, no QuickSight, no stream


def test_one_kind_of_instance_is_asked_for() -> None:
    result = call("init", "--aws", "--production")
    assert result.exit_code == 2
    assert not Path("lakehouse.toml").exists()


SERVICES = {
    "databricks": ('engine = "embedded" ', 'engine = "databricks"'),
    "redshift": ('# warehouse = "redshift"', 'warehouse = "redshift"'),
    "quicksight": ('# dashboard = "quicksight"', 'dashboard = "quicksight"'),
    "stream": ("# [stream]", "# [stream]"),
}


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_that_is_a_comment_works_once_it_is_none(service: str) -> None:
    off, on = SERVICES[service]
    assert off in AWS_TOML
    text = AWS_TOML.replace(off, on)
    head, table, rest = text.partition(f"# [{service}]\n")
    assert table
    lines = rest.split("\n")
    end = next((number for number, line in enumerate(lines) if not line.startswith("# ")), len(lines))
    active = [line.removeprefix("# ") for line in lines[:end]]
    Path("lakehouse.toml").write_text(head + f"[{service}]\n" + "\n".join(active + lines[end:]))
    settings = load_settings()
    assert getattr(settings, service).model_fields_set == tomllib.loads("\n".join(active)).keys()
    result = call("deploy", "render")
    assert result.exit_code == 0, result.output
    assert Path("deploy/databricks.yml").exists() == (service == "databricks")


def test_the_examples_bucket_is_refused_with_what_to_fill_in() -> None:
    call("init", "--aws")
    with pytest.raises(
        StorageError, match=r"lake_root: s3://amzn-s3-demo-bucket/lake is the example .*output LakeRoot of"
    ):
        list(storage_at(str(load_settings().lake_root)).walk("curated"))
    assert "broken  lake: lake_root: s3://amzn-s3-demo-bucket/lake is the example" in call("doctor").output
