"""The entry point of the image and of the units of systemd: `python -m stock_lakehouse.deployment.start COMMAND …`.

Here: what a process needs before it starts: secrets from systemd's credentials as variables, and the files of DAGSTER_HOME. Not
here: what these files say (production.py, instance/home.py).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from stock_lakehouse.deployment.production import VARIABLES, WORKSPACE
from stock_lakehouse.instance.home import POSTGRES_VARIABLE, PRODUCTION, write_new
from stock_lakehouse.instance.home import WORKSPACE as WORKSPACE_IN_PROCESS

CREDENTIAL = "variable_"  # deploy/systemd loads the files of a folder with this prefix
NAME = "stock-lakehouse"  # the program
# Set in the image: the rendered dagster.yaml of ECS.
TEMPLATE_VARIABLE = "DAGSTER_YAML_TEMPLATE"


class StartError(Exception):
    """A process cannot start. The message says what is missing and what gives it; it has no secret."""


def completed(variables: Mapping[str, str]) -> dict[str, str]:
    """`variables`, and for each credential `variable_NAME` that systemd loaded for the unit a variable NAME. A credential wins.

    https://systemd.io/CREDENTIALS: each is a file in the folder that CREDENTIALS_DIRECTORY names, which only the unit can read.
    AWS_REGION, the region of the lake, is also boto3's, which reads AWS_DEFAULT_REGION alone.
    """
    folder = variables.get("CREDENTIALS_DIRECTORY")
    files = sorted(Path(folder).glob(f"{CREDENTIAL}*")) if folder else []
    secrets = {file.name.removeprefix(CREDENTIAL): file.read_text(encoding="utf-8").rstrip("\n") for file in files}
    region = {"AWS_DEFAULT_REGION": variables["AWS_REGION"]} if variables.get("AWS_REGION") else {}
    return {**region, **variables, **secrets}


def prepare(variables: Mapping[str, str]) -> None:
    """Write dagster.yaml and workspace.yaml into DAGSTER_HOME if they are not there.

    With DAGSTER_POSTGRES_URL they are those of a server. Without it they are those of ECS, made of the file that
    DAGSTER_YAML_TEMPLATE names. Raises StartError if a variable is missing.
    """
    if not variables.get("DAGSTER_HOME"):
        raise StartError("DAGSTER_HOME is not set: set it to a folder that the process may write")
    home = Path(variables["DAGSTER_HOME"])
    if variables.get(POSTGRES_VARIABLE):
        write_new(home / "dagster.yaml", PRODUCTION, force=False)
        write_new(home / "workspace.yaml", WORKSPACE_IN_PROCESS, force=False)
        return
    if not variables.get(TEMPLATE_VARIABLE):
        raise StartError(
            f"{POSTGRES_VARIABLE} is not set: set it to the address of Dagster's database; a unit of systemd has it from the "
            "file of that name in /etc/stock-lakehouse/credentials"
        )
    missing = [f"{name} ({meaning})" for name, meaning in VARIABLES.items() if not variables.get(name)]
    if missing:
        raise StartError(
            f"these variables are not set: {'; '.join(missing)}. deploy/lakehouse.yaml sets them; outside ECS set "
            f"{POSTGRES_VARIABLE} instead, the address of Dagster's database"
        )
    text = Path(variables[TEMPLATE_VARIABLE]).read_text(encoding="utf-8")
    try:
        filled = Template(text).substitute(variables)
    except (KeyError, ValueError) as error:
        raise StartError(
            f"{variables[TEMPLATE_VARIABLE]} names a variable that is not set, or has a $ of its own: {error}"
        ) from None
    write_new(home / "dagster.yaml", filled, force=False)
    write_new(home / "workspace.yaml", WORKSPACE, force=False)


def main(command: Sequence[str]) -> None:
    """Prepare, then become `command`. Exits with a line if that is not possible."""
    try:
        if not command:
            raise StartError("name a command, like `dagster-daemon run`")
        variables = completed(os.environ)
        if command[0].startswith(("dagster", NAME)):  # others do without Dagster, like the maker of the database's user
            prepare(variables)
        # Programs of this environment come first: a unit of systemd has no PATH of it.
        path = os.pathsep.join([str(Path(sys.executable).parent), variables.get("PATH", os.defpath)])
        program = shutil.which(command[0], path=path)
        if program is None:
            raise StartError(f"{command[0]} is not installed")
    except (StartError, OSError) as error:
        sys.exit(f"start: {error}")
    os.execve(program, list(command), {**variables, "PATH": path})


if __name__ == "__main__":
    main(sys.argv[1:])
