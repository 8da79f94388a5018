"""What the chapters asked for as their roles: the rights that none used, the drops, and the table of the documentation.

Here: playing a chapter, and what is made of records. Not here: the chapters (chapters.py), the world (world.py).
"""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stock_lakehouse.resources.spark import SparkResource
from stock_lakehouse_tests.deployment.asked import Asked, Grant, Policies, grants
from stock_lakehouse_tests.deployment.chapters import CHAPTERS, Chapter
from stock_lakehouse_tests.deployment.gate import Record
from stock_lakehouse_tests.deployment.world import World, make_lakes, world

DOCUMENT = Path(__file__).parents[2] / "docs" / "deployment.d5.md"
PREFIX = "team/lake"  # of policies of which only the form counts

# Rights that no chapter uses, and why a role has them: role, statement, action, place; each a pattern of the whole text.
REASONS: tuple[tuple[str, str, str, str, str], ...] = (
    (".*", "Write", "s3:AbortMultipartUpload", ".*", "an upload in parts that fails is aborted, and none failed"),
    (".*", "List|Read|Write", "s3:.*", r"\.dagster/logs", "Dagster on ECS keeps there what runs print"),
    ("run|run-jobs|stream", ".*", "s3:.*", r"\.locks/doctor-\*", "for `doctor` in a task with the role"),
    (".*", "List|Write", "s3:.*", "athena-results", "Athena writes results in the name of who asks"),
    (".*", "Results.*", "s3:.*", ".*", "Athena asks for it in the name of who asks"),
    ("reader", "Key", "kms:GenerateDataKey", "-", "Athena encrypts results in the name of who asks"),
    (".*", "QueriedTables", "glue:.*", "-", "Athena reads the catalog in the name of who asks"),
    (
        "spectrum",
        "Registered",
        "glue:.*",
        "-",
        "Redshift plans queries with it; the server of the tests asks for tables and partitions",
    ),
    ("upkeep|repair", "Registered", "glue:.*", "-", "the warehouse's loads need it; a comparison of all rows does not"),
    (
        "run|run-jobs",
        "(Any)?Crawler.*",
        ".*",
        "-",
        "the emulator's crawlers make no tables; catalog/test_crawlers.py has their calls",
    ),
    (".*", "Queries", "athena:StopQueryExecution", "-", "a query is stopped when its time is over, and by Ctrl-C"),
    (".*", "StatementsSent", "redshift-data:CancelStatement", "-", "a statement is cancelled when its time is over"),
    ("run|run-jobs", "Workgroup", "athena:UpdateWorkGroup", "-", "the settings of the workgroup have changed"),
    (
        "run|run-jobs",
        "Catalog",
        "glue:(DeleteTable|Batch.*Partition)",
        "-",
        "the layout, or what is partitioned, has changed",
    ),
    ("run|run-jobs", "QuickSight.*", "quicksight:.*", "-", "somebody, or another release, has changed the dashboard"),
    ("dagster", "StartRuns|FollowRuns|RunTaskDefinition|RunRoles", ".*", "-", "the launcher of runs on ECS"),
    (".*", "List|Read|Write|Delete", "s3:.*", "processed/.*_by_year", 'with `layout = "year"`, as for the role `run`'),
    ("run|run-jobs|job|repair", "Delete", "s3:DeleteObject", "processed/raw_compacted", "a damaged part is replaced"),
    (
        "run-jobs",
        ".*",
        "s3:.*",
        r"(\.locks/|curated/|processed/|serving|reports|raw/|\.staging).*",
        "what a killed run left, as for `run`",
    ),
    (
        "job",
        ".*",
        "s3:.*",
        r".*restatements.*|processed/(quarantine|raw_compacted|stocks_daily)",
        "restatements, as for `run`",
    ),
    (
        "repair",
        ".*",
        "s3:.*",
        r".*(restatements|raw_stocks_daily).*|\.damaged|\.staging|processed/.*|stream/.*|serving",
        "as for `run` and `upkeep`",
    ),
    (
        "upkeep",
        ".*",
        "s3:.*",
        r"\.repairs|\.staging|processed/.*|serving|stream/.*|\.locks/stream.*",
        "what killed runs and runners left",
    ),
    (
        "reader",
        "List|Read",
        "s3:.*",
        "reports|stream/.*|curated/restatements",
        "read by who wants to; commands of the stream read them as `stream`",
    ),
    ("dagster", "List|Read", "s3:.*", r"stream/.*|\.locks/stream.*", "of a stream with losses and live features"),
    (
        "stream",
        ".*",
        "s3:.*",
        r"stream/.*|\.locks/.*|\.staging|curated/stocks_daily",
        "old versions, losses and live features",
    ),
    ("spectrum", "List|Read", "s3:.*", "raw/stocks_daily|processed/.*", "for queries through the external schema"),
)


def played(place: World, chapter: Chapter, folder: Path) -> Record:
    """What `chapter` asked for. Raises FailedError if a command failed."""
    with place.staged(chapter.given, folder / "stage") as stage:
        chapter.before(stage)
        place.record()
        stage.play(chapter.act, chapter.role, chapter.name)
    return place.record()


# Rights that are for nothing


def unused(place: World, records: Iterable[Record]) -> tuple[list[str], list[str]]:
    """The grants that no record used and no reason of REASONS explains; and the reasons that explain none."""
    used: set[tuple[str, str, str, str]] = set()
    for record in records:
        for role, found in record.used.items():
            used |= {(role, *_form(grant)) for grant in found}
    roles = {role for role, *_ in used}
    found, needed = [], set()
    for name in sorted(roles):
        policies = place.policies_of(place.roles[name], PREFIX)
        for grant in dict.fromkeys(_form(grant) for grant, _ in grants(policies)):
            right = (name, *grant)
            if right in used:
                continue
            reason = next((one for one in REASONS if all(map(re.fullmatch, one[:4], right))), None)
            if reason is None:
                found.append(" ".join(right))
            else:
                needed.add(reason)
    return found, [" ".join(reason[:4]) for reason in REASONS if reason not in needed]


def _form(grant: Grant) -> tuple[str, str, str]:
    """A grant without the names of a stage: statement, action, and the place, in which a folder and its keys are one.

    Of other services a statement's resources belong together, like a catalog, its database and its tables.
    """
    if not grant.action.startswith("s3:"):
        return grant.sid, grant.action, "-"
    place = re.sub(r"^(arn:[^:]*:s3:::[^/]+/)?team/\w+", "", grant.place)
    return grant.sid.removesuffix("More"), grant.action, place.lstrip("/") or "."


# Drops


def actions_of(policies: Policies) -> dict[tuple[str, str], set[str]]:
    """The actions of each statement, and the resources that it has them for. A statement that was divided counts once."""
    found: dict[tuple[str, str], set[str]] = {}
    for grant, _ in grants(policies):
        found.setdefault((grant.sid.removesuffix("More"), grant.action), set()).add(grant.resource)
    return found


def without(policies: Policies, sid: str, action: str) -> Policies:
    """The policies without `action` of the statement `sid`, and of statements that give it for the same resources."""
    resources = actions_of(policies)[sid, action]
    found: dict[str, Any] = copy.deepcopy(dict(policies))
    for document in found.values():
        for statement in document["Statement"]:
            if statement["Sid"].removesuffix("More") == sid or set(statement["Resource"]) <= resources:
                statement["Action"] = [one for one in statement["Action"] if one != action]
        document["Statement"] = [statement for statement in document["Statement"] if statement["Action"]]
    return found


def droppable(place: World, records: Mapping[str, Record], role: str) -> Iterator[tuple[str, str, str]]:
    """Each action of each statement of a role that a chapter used, with the quickest of those chapters."""
    chapters: dict[tuple[str, str], str] = {}
    for name in sorted(records, key=lambda name: -place.seconds[name]):
        for grant in records[name].used.get(role, ()):
            chapters[grant.sid.removesuffix("More"), grant.action] = name
    for (sid, action), name in sorted(chapters.items()):
        yield sid, action, name


def drop(place: World, chapter: Chapter, sid: str, action: str, folder: Path, role: str | None = None) -> str:
    """Play `chapter` without `action`: empty if what it says names the action, mostly in an error; else what happened."""
    name = role or chapter.role
    with place.staged(chapter.given, folder / "stage") as stage:
        chapter.before(stage)
        stage.policies[name] = without(stage.policies_of(name), sid, action)
        place.record()
        try:
            stage.play(chapter.act, chapter.role, chapter.name)
        except Exception as error:  # noqa: BLE001 - whatever it is, its text must name the action
            said = f"{error}\n{stage.said}"
        else:
            said = stage.said
            if action in " ".join(said.split()):
                return ""  # it goes on, and says without what
            refused = place.record().refusals(chapter.name)
            return f"it goes on although {refused[:2]} was refused; its output:\n{said[-600:]}"
    if name == "spectrum":
        return ""  # what Redshift says of its own role is Redshift's
    words = " ".join(said.split())  # lines are broken where they end
    return "" if action in words else f"the error does not name it:\n{said[-1500:]}"


# The documentation


def document(records: Mapping[str, Record]) -> str:
    """The table of what each command asked for, by role."""
    lines = [
        "## What each command asked for",
        "",
        "Recorded from every command as its role, behind a gate that refuses what the role's policies do not allow.",
        "S3's actions are those on the lake's keys and the key of its bucket; a listing counts also where S3 looks",
        "whether the caller may know that an object does not exist. `python -m",
        "stock_lakehouse_tests.deployment.recorded` records it again. Rights that no command used are listed with their",
        "reasons there.",
        "",
        "| role | command | S3 | other services |",
        "|---|---|---|---|",
    ]
    for chapter in CHAPTERS:
        by_role: dict[str, set[Asked]] = {}
        for _, role, asked in records[chapter.name].asked:
            by_role.setdefault(role, set()).add(asked)
        for role, found in sorted(by_role.items(), key=lambda item: (item[0] != chapter.role, item[0])):
            lines.append(f"| `{role}` | {chapter.name} | {_by_service(found, S3)} | {_by_service(found)} |")
    return "\n".join([*lines, ""])


S3 = ("s3", "kms")


def _by_service(found: set[Asked], services: tuple[str, ...] = ()) -> str:
    """The actions of `services`, or of all but those of S3, each service with its actions."""
    actions: dict[str, set[str]] = {}
    for asked in found:
        service, _, action = asked.action.partition(":")
        if service in services if services else service not in S3:
            actions.setdefault(service, set()).add(action)
    return "; ".join(f"`{service}:` {', '.join(sorted(actions[service]))}" for service in sorted(actions)) or "-"


def main() -> None:
    """Play every chapter, and write the document."""
    engine = SparkResource(engine="embedded")
    with tempfile.TemporaryDirectory() as folder:
        lakes = Path(folder, "lakes")
        lakes.mkdir()
        with world(engine.session, make_lakes(lakes, engine.session)) as place:
            records = {chapter.name: played(place, chapter, Path(folder, str(n))) for n, chapter in enumerate(CHAPTERS)}
    DOCUMENT.write_text(document(records), encoding="utf-8")
    engine.teardown_after_execution(None)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
