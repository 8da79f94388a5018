"""The commands of a deployment on AWS and Databricks: deploy render, deploy check, deploy databricks."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stock_lakehouse.cli.context import settings_of_process
from stock_lakehouse.cli.printing import fail, print_data, progress_printer, say, say_diagnosis
from stock_lakehouse.cli.program import app

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

deploy = typer.Typer(no_args_is_help=True, help="Deploy on AWS and Databricks: render what is deployed, and check it.")
app.add_typer(deploy, name="deploy")

Folder = Annotated[Path, typer.Option(metavar="FOLDER", help="Where the rendered files are.")]


@deploy.command()
def render(
    check: Annotated[bool, typer.Option("--check", help="Compare with the files, and write nothing.")] = False,
    folder: Folder = Path("deploy"),
) -> None:
    """Write what is deployed, from the settings and the asset graph: template, policies, bundle, dagster.yaml.

    FOLDER/lakehouse.toml has the settings if it exists, else the lakehouse.toml of every command. With --check the exit code is
    1 if a file differs.
    """
    from stock_lakehouse.deployment.render import differences, rendered, write
    from stock_lakehouse.deployment.rights import DeploymentError

    try:
        files = rendered(deployed_settings(folder))
    except DeploymentError as error:
        fail(str(error))
    changed = differences(files, folder) if check else write(files, folder)
    for path in changed:
        say(f"{folder / path}: {'differs' if check else 'written' if path in files else 'removed'}")
    say(f"{len(files)} files, {len(changed)} {'differ' if check else 'changed'}")
    if check and changed:
        say("to do: stock-lakehouse deploy render")
        raise typer.Exit(1)


@deploy.command()
def check(
    folder: Folder = Path("deploy"),
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check what is deployed, without an account; each line says how to mend what is broken."""
    from stock_lakehouse.deployment.check import examine
    from stock_lakehouse.deployment.rights import DeploymentError

    settings = deployed_settings(folder)
    try:
        found = list(examine(settings, folder))
    except DeploymentError as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps([asdict(diagnosis) for diagnosis in found], indent=2))
    broken = [
        diagnosis for diagnosis in found if (not as_json and say_diagnosis(diagnosis)) or diagnosis.state == "broken"
    ]
    if broken:
        raise typer.Exit(1)


@deploy.command()
def databricks(
    stack: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="CloudFormation stack whose outputs say what the following options do not."),
    ] = None,
    instance_profile: Annotated[
        str | None, typer.Option(metavar="ARN", help="Instance profile of the role `job`, for clusters.")
    ] = None,
    reader_role: Annotated[
        str | None, typer.Option(metavar="ARN", help="The role `reader`, with which Unity Catalog reads the lake.")
    ] = None,
    principal: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Application id of the service principal that runs jobs in production."),
    ] = None,
    region: Annotated[
        str | None, typer.Option(metavar="REGION", help="Region of the lake's bucket; default: AWS_REGION.")
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the storage credential and of the external location.")
    ] = "stock_lakehouse",
    folder: Folder = Path("deploy"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the steps as JSON.")] = False,
) -> None:
    """Prepare a Databricks workspace for the bundle: instance profile, storage credential, external location, variables.

    Only what differs is written. The reader role can trust the credential only after it exists, so the first call ends with the
    parameters for the stack's second update and exit code 1; the next call completes.

      stock-lakehouse deploy databricks --stack stock-lakehouse --principal APPLICATION-ID
    """
    from rich.markup import escape

    from stock_lakehouse.deployment.workspace import WorkspaceError, prepare, wanted_of, write_variables
    from stock_lakehouse.engines.databricks import workspace
    from stock_lakehouse.engines.errors import EngineError

    settings = settings_of_process()
    try:
        wanted = wanted_of(settings, stack, instance_profile, reader_role, principal, region, name)
        tell = (lambda line: None) if dry_run else progress_printer()
        outcome = prepare(wanted, workspace(settings.databricks), dry_run, tell)
        outcome.steps += write_variables(wanted, folder, dry_run)
    except (EngineError, WorkspaceError) as error:
        fail(str(error))
    if as_json:
        print_data(json.dumps(outcome.as_json(), indent=2))
    else:
        for step in outcome.steps:
            say(escape(str(step)))
        say(f"{outcome.writes} writes to the workspace")
    if not outcome.is_complete:
        raise typer.Exit(1)


def deployed_settings(folder: Path) -> Settings:
    """The settings of the deployment that is rendered to `folder`."""
    from stock_lakehouse.settings import CONFIG_VARIABLE

    own = folder / "lakehouse.toml"
    if CONFIG_VARIABLE not in os.environ and own.is_file():
        os.environ[CONFIG_VARIABLE] = str(own)
    return settings_of_process()
