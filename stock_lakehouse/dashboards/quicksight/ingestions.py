"""Refreshes of a data set in SPICE: starting one, taking up one that goes on, and waiting for its end.

Not here: whether a refresh is needed, and of which type (refresh.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from stock_lakehouse.dashboards.quicksight.client import IngestionError, QuickSight, wait

Ingestion = Mapping[str, Any]

MINUTES = 120.0  # that a refresh may take
ATTEMPTS = 3  # of a refresh that others supersede
LISTED = 100  # newest refreshes that are looked at, the most of a page
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
ADVICE = {
    "PERMISSION_DENIED": "allow QuickSight's role to read from the source (docs/dashboards.md, QuickSight), then run again",
    "FAILURE_TO_ASSUME_ROLE": "let QuickSight assume quicksight.role, then run again",
    "IAM_ROLE_NOT_AVAILABLE": "correct quicksight.role, then run again",
    "PASSWORD_AUTHENTICATION_FAILURE": "correct the secret of quicksight.secret, then run again",
    "SQL_TABLE_NOT_FOUND": "register the tables first: `stock-lakehouse materialize --select catalog`",
    "ACCOUNT_CAPACITY_LIMIT_EXCEEDED": "buy SPICE capacity in QuickSight's console, then run again",
    "DATA_SET_SIZE_LIMIT_EXCEEDED": "the lake has more rows than a data set of SPICE may have",
    "SOURCE_RESOURCE_LIMIT_EXCEEDED": "raise aws.athena_scan_limit_mb if Athena's limit was reached, then run again",
}
OTHER_ADVICE = "the rows before stay in use; run again when that is repaired"


def refresh(
    quicksight: QuickSight,
    what: str,
    place: Mapping[str, str],
    kind: str,
    content: str,
    now: datetime,
    started: str | None,
) -> Ingestion:
    """Read the rows of a data set into SPICE; return the refresh that did it, completed.

    - what: the data set, for errors
    - place: the member DataSetId
    - kind: FULL_REFRESH or INCREMENTAL_REFRESH
    - content: a digest of what the lake has. Identifiers of refreshes begin with it, so that the one of a killed run is taken up.
    - now: makes the identifier of a new refresh unique
    - started: a refresh that goes on already; None to start one

    A refresh that another one supersedes is as good as that one, if that reads at least as much. Raises IngestionError,
    WaitError.
    """
    for attempt in range(ATTEMPTS):
        new = f"{content}-{now:%Y%m%d%H%M%S}-{attempt}"
        identifier = started or _start(quicksight, what, place, kind, content, new)
        ended = _wait(quicksight, what, place, identifier)
        if ended["IngestionStatus"] == "COMPLETED":
            return _without_loss(what, ended)
        error = ended.get("ErrorInfo", {})
        if error.get("Type") != "INGESTION_SUPERSEDED":
            raise IngestionError(
                f"{what}: the refresh {identifier} ended as {ended['IngestionStatus']}: {error.get('Type', 'no reason')}: "
                f"{error.get('Message', '')}; {ADVICE.get(str(error.get('Type')), OTHER_ADVICE)}"
            )
        newest = _newest_first(quicksight, what, place)[0]
        is_another = newest["IngestionId"] != identifier and _covers(newest, kind)
        started = str(newest["IngestionId"]) if is_another else None
    raise IngestionError(
        f"{what}: other refreshes superseded it {ATTEMPTS} times; see who else refreshes the data set, and run again"
    )


def _start(quicksight: QuickSight, what: str, place: Mapping[str, str], kind: str, content: str, new: str) -> str:
    """The identifier of a refresh that reads `content`: of the newest one if a killed run started that, else `new`."""
    ingestions = _newest_first(quicksight, what, place)
    if ingestions:
        newest, identifier = ingestions[0], str(ingestions[0]["IngestionId"])
        is_alive = newest["IngestionStatus"] not in ("FAILED", "CANCELLED")
        if identifier.startswith(content) and _covers(newest, kind) and is_alive:
            return identifier
    # The answer is empty if the first answer to this call was lost: then the refresh has started.
    quicksight.call("create_ingestion", what, **place, IngestionId=new, IngestionType=kind)
    return new


def _newest_first(quicksight: QuickSight, what: str, place: Mapping[str, str]) -> list[Ingestion]:
    """The last refreshes of a data set, newest first."""
    found = quicksight.find("list_ingestions", what, **place, MaxResults=LISTED) or {}
    return sorted(found.get("Ingestions", []), key=lambda ingestion: ingestion["CreatedTime"], reverse=True)


def _wait(quicksight: QuickSight, what: str, place: Mapping[str, str], identifier: str) -> Ingestion:
    def ended() -> Ingestion | None:
        found = quicksight.find("describe_ingestion", what, **place, IngestionId=identifier)
        if found is None:
            raise IngestionError(f"{what}: the refresh {identifier} is gone; run again")
        ingestion: Ingestion = found["Ingestion"]
        return ingestion if ingestion["IngestionStatus"] in ENDED else None

    found: Ingestion = wait(ended, MINUTES, what)
    return found


def _covers(ingestion: Ingestion, kind: str) -> bool:
    """Whether a refresh reads as much as one of `kind`. That of a new or changed data set reads all."""
    return kind == "INCREMENTAL_REFRESH" or ingestion.get("RequestType") != "INCREMENTAL_REFRESH"


def _without_loss(what: str, ended: Ingestion) -> Ingestion:
    counts = ended.get("RowInfo", {})
    if dropped := counts.get("RowsDropped", 0):
        raise IngestionError(
            f"{what}: SPICE dropped {dropped:,} of {dropped + counts.get('RowsIngested', 0):,} rows; QuickSight's console says "
            f"which (refresh {ended.get('IngestionId')}); run again when that is repaired"
        )
    return ended
