"""The commands of a deployment on AWS and Databricks: deploy render, deploy check, deploy databricks, deploy destroy."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stock_lakehouse.cli.context import settings_of_process
from stock_lakehouse.cli.printing import aside, fail, print_data, progress_printer, say, say_diagnosis
from stock_lakehouse.cli.program import app

if TYPE_CHECKING:
    from stock_lakehouse.diagnosis import Diagnosis
    from stock_lakehouse.settings import Settings

deploy = typer.Typer(no_args_is_help=True, help="Deploy on AWS and Databricks: render what is deployed, and check it.")
app.add_typer(deploy, name="deploy")

STACK = "stock-lakehouse"
Stack = Annotated[str, typer.Option(metavar="NAME", help="CloudFormation stack of the deployment.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Folder = Annotated[Path, typer.Option(metavar="FOLDER", help="Where the rendered files are.")]


@deploy.command()
def render(
    check: Annotated[bool, typer.Option("--check", help="Compare with the files, and write nothing.")] = False,
    folder: Folder = Path("deploy"),
) -> None:
    """Write what is deployed, from the settings and the asset graph: template, policies, bundle, dagster.yaml.

    The settings are those of every command; if their lake is not on S3, those of FOLDER/lakehouse.toml. With --check the exit
    code is 1 if a file differs.
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
    live: Annotated[
        bool, typer.Option("--live", help="Also ask the account: its stack, policies and answers of IAM, and `doctor`.")
    ] = False,
    stack: Stack = STACK,
    folder: Folder = Path("deploy"),
    as_json: AsJson = False,
) -> None:
    """Check what is deployed; each line says how to mend what is broken. Without --live no account is needed."""
    from stock_lakehouse.deployment.live import LiveError
    from stock_lakehouse.deployment.rights import DeploymentError

    settings = settings_of_process() if live else deployed_settings(folder)
    found = []
    try:
        for diagnosis in _examined(settings, folder, stack if live else None):
            found.append(diagnosis)
            if not as_json:
                say_diagnosis(diagnosis)
    except (DeploymentError, LiveError) as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps([asdict(diagnosis) for diagnosis in found], indent=2))
    if any(diagnosis.state == "broken" for diagnosis in found):
        raise typer.Exit(1)


@deploy.command()
def databricks(
    stack: Stack = STACK,
    instance_profile: Annotated[
        str | None, typer.Option(metavar="ARN", help="Instance profile of the role `job`, instead of the stack's.")
    ] = None,
    catalog_role: Annotated[
        str | None, typer.Option(metavar="ARN", help="Role with which Unity Catalog reads, instead of the stack's.")
    ] = None,
    principal: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Application id of the service principal that runs jobs in production."),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(metavar="REGION", help="Region of the lake's bucket; default: the stack's, or AWS_REGION."),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the storage credential and of the external location.")
    ] = "stock_lakehouse",
    folder: Folder = Path("deploy"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the steps as JSON.")] = False,
) -> None:
    """Prepare a Databricks workspace for the bundle: instance profile, storage credential, external location, variables.

    Only what differs is written. Unity Catalog's role can trust the credential only after it exists, so the first call ends with
    the parameters for the stack's second update and exit code 1; the next call completes. With --instance-profile or
    --catalog-role the stack is not asked.

      stock-lakehouse deploy databricks --principal APPLICATION-ID
    """
    from rich.markup import escape

    from stock_lakehouse.deployment.live import Deployed, LiveError
    from stock_lakehouse.deployment.workspace import WorkspaceError, prepare, wanted_of, write_variables
    from stock_lakehouse.engines.databricks import workspace
    from stock_lakehouse.engines.errors import EngineError

    settings = settings_of_process()
    try:
        asked = Deployed(stack) if instance_profile is None and catalog_role is None else None
        wanted = wanted_of(settings, asked, instance_profile, catalog_role, principal, region, name)
        tell = (lambda line: None) if dry_run else progress_printer()
        outcome = prepare(wanted, workspace(settings.databricks), dry_run, tell)
        outcome.steps += write_variables(wanted, folder, dry_run)
    except (EngineError, LiveError, WorkspaceError) as error:
        fail(str(error))
    if as_json:
        print_data(json.dumps(outcome.as_json(), indent=2))
    else:
        for step in outcome.steps:
            say(escape(str(step)))
        say(f"{outcome.writes} writes to the workspace")
    if not outcome.is_complete:
        raise typer.Exit(1)


@deploy.command()
def destroy(
    lake: Annotated[bool, typer.Option("--lake", help="Delete the lake that the settings name: all versions.")] = False,
    bucket: Annotated[
        str | None, typer.Option(metavar="NAME", help="The bucket's name, for programs. Without it, it is asked for.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Delete the lake for ever, after its stack: all versions of its objects, its bucket, and in 30 days its key.

    The bucket's name has to be typed. It can be killed, and the same command goes on. The bucket and the key stay while other
    objects are in the bucket.
    """
    from stock_lakehouse.deployment.destroy import DestroyError, Lake

    if not lake:
        fail(
            "--lake: is missing, so nothing was deleted. A teardown is `databricks bundle destroy`, then `aws cloudformation "
            "delete-stack`; both keep the lake, which `stock-lakehouse deploy destroy --lake` deletes"
        )
    settings = settings_of_process()
    if not isinstance(settings.lake_root, str):
        fail(f"lake_root: {settings.lake_root} is a folder; delete it by hand, or set lake_root to the lake on S3")
    found = Lake(settings.lake_root)
    try:
        if not found.check():
            say(f"There is no bucket {found.bucket}: nothing to delete.")
            return
        if not _is_meant(found.bucket, settings.lake_root, bucket):
            fail("that is not the bucket's name, so nothing was deleted")
        destroyed = found.destroy(progress_printer())
    except DestroyError as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps(asdict(destroyed), indent=2, default=str))
        return
    say(f"{destroyed.versions:,} versions of objects and {destroyed.uploads:,} unfinished uploads are deleted.")
    if destroyed.bucket:
        say(f"The bucket {found.bucket} is deleted.")
    if destroyed.key:
        say(f"KMS deletes the key {destroyed.key} on {destroyed.key_gone}. Until then: aws kms cancel-key-deletion")
    for sentence in destroyed.kept:
        say(f"{sentence[0].upper()}{sentence[1:]}.")


def _is_meant(bucket: str, root: str, given: str | None) -> bool:
    """Whether the bucket's name was given or typed. Without a terminal it cannot be typed."""
    if given is None:
        if not sys.stdin.isatty():
            fail(
                f"--bucket: is missing, and nobody can be asked; to delete {root} for ever, add --bucket and its bucket's name"
            )
        given = typer.prompt(f"This deletes {root} with its whole history for ever. Type the bucket's name to go on")
    return given == bucket


def _examined(settings: Settings, folder: Path, stack: str | None) -> Iterator[Diagnosis]:
    """What is found without an account; with `stack` also in the account, and by `doctor`."""
    from stock_lakehouse.deployment.check import examine
    from stock_lakehouse.deployment.live import examine_live

    yield from examine(settings, folder)
    if stack is not None:
        from stock_lakehouse.cli import doctor

        yield from examine_live(settings, stack)
        yield from doctor.examine(aside)


def deployed_settings(folder: Path) -> Settings:
    """The settings of the process if their lake is on S3, else those of `folder`, which in the repository use every service.

    The latter are for what is rendered. No command that calls AWS takes them.
    """
    from stock_lakehouse.settings import CONFIG_VARIABLE

    settings, example = settings_of_process(), folder / "lakehouse.toml"
    if isinstance(settings.lake_root, str) or CONFIG_VARIABLE in os.environ or not example.is_file():
        return settings
    os.environ[CONFIG_VARIABLE] = str(example)
    try:
        return settings_of_process()
    finally:
        del os.environ[CONFIG_VARIABLE]
