"""The command restore: a lake made again from a backup of what cannot be computed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stock_lakehouse.cli.context import asked_rectangle, check_instance, check_lake_root, settings_of_process
from stock_lakehouse.cli.printing import fail, print_table, progress_printer, say
from stock_lakehouse.cli.program import app
from stock_lakehouse.cli.run import load_missing


@app.command()
def restore(
    backup: Annotated[
        str, typer.Argument(metavar="BACKUP", help="Folder, or s3://bucket/prefix, with a copy of the lake's folders.")
    ],
) -> None:
    """Make an empty lake again from a backup: copy landed rows, the ledger and the stream's messages, then compute all else.

    A backup needs raw/, curated/restatements/ and, with a stream, stream/raw_ticks/ and stream/losses/; it may be a whole lake.
    No request is sent to the source, so the tables are those of the lake that was backed up. Dagster then knows what the lake
    holds. A restore that was stopped or killed continues when it is started again.
    """
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.lock import TableBusyError
    from stock_lakehouse.lake.restore import RestoreError, copy_backup, drop_orphans
    from stock_lakehouse.lake.storage import StorageError
    from stock_lakehouse.lake_options import LakeOptions
    from stock_lakehouse.tables import RAW, RESTATEMENTS, TABLES

    settings = settings_of_process()
    requested = asked_rectangle(settings, None, None, None)
    check_lake_root(settings)
    check_instance(settings)
    options = settings.lake_options
    try:
        origin = LakeOptions(lake_root=backup).lake_root
    except ValueError:
        fail(f"BACKUP: {backup!r} is neither a folder nor s3://bucket/prefix")
    if isinstance(origin, Path):
        origin = origin.absolute()
    if origin == options.lake_root:
        fail(f"BACKUP: {backup} is the lake itself; name its backup")
    source, lake = Lake(options.model_copy(update={"lake_root": origin})), Lake(options)
    try:
        copied = copy_backup(source, lake, progress_printer())
        drop_orphans(source, lake)
        known = {ticker for ticker, _ in lake.raw.ticker_years()}
    except (RestoreError, StorageError, TableBusyError) as error:
        fail(str(error))
    print_table(
        ("table", "files copied", "there already"),
        [(table.table, f"{table.written:,}", f"{table.kept:,}") for table in copied],
    )
    if not any(table.written + table.kept for table in copied if table.table == RESTATEMENTS.name):
        say(
            f"The backup has no ledger, {RESTATEMENTS.path}. That is right if no published value ever changed; else add it to "
            "the backup, and restore into an empty place again."
        )
    if removed := sorted(known - set(settings.tickers)):
        say(
            f"Not in the settings, so not computed: {', '.join(removed)}; put them into `tickers` and restore again, if the "
            "lake had their rows."
        )
    load_missing(settings, requested, [table.name for table in TABLES if table != RAW])
