"""What the chapters asked for as their roles: the rights that none used, the drops, and the table of the documentation.

Here: playing a chapter, and what is made of records. Not here: the chapters (chapters.py), the world (world.py).
"""

from __future__ import annotations

import contextlib
import copy
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stock_lakehouse.deployment.policies import UNASKED
from stock_lakehouse.resources.spark import SparkResource
from stock_lakehouse_tests.deployment.asked import Asked, Grant, Policies, grants
from stock_lakehouse_tests.deployment.chapters import CHAPTERS, Chapter
from stock_lakehouse_tests.deployment.gate import Record
from stock_lakehouse_tests.deployment.world import Lakes, Stage, World, world

DOCUMENT = Path(__file__).parents[2] / "docs" / "deployment-rights.md"
MARKS = re.compile(r"(?<=<!-- recorded -->\n).*?(?=<!-- end of recorded -->)", re.DOTALL)
PREFIX = "team/lake"  # of policies of which only the form counts

UNPLAYED = {"crawler": "the emulator's crawlers make no tables"}  # roles that no server of the tests has, and why

# Actions without which a command goes on and is right to, and why. Every other action is missed by name.
OPTIONAL = {
    "quicksight:DescribeAccountSubscription": "without it the first call of a dashboard tells which edition the account has"
}


@dataclass(frozen=True)
class Reason:
    """Why roles have rights that no chapter uses: each of these actions of these statements at these places.

    The words of a string are alternatives, and for each of them there is such a right. The place of a right at other services
    than S3 is "-".
    """

    why: str
    roles: str
    statements: str
    actions: str
    places: str = "-"

    @property
    def words(self) -> tuple[list[str], ...]:
        return tuple(field.split() for field in (self.roles, self.statements, self.actions, self.places))

    def explains(self, right: tuple[str, str, str, str]) -> bool:
        return all(part in words for part, words in zip(right, self.words, strict=True))


IN_ITS_NAME = "Athena asks for it in the name of who asks"
CHANGED = "somebody, or another release, has changed the dashboard, its data sets or their source"
AS_RUN = "played as `run`"
OF_CLEANING = "nothing of it was replaced long ago, or left by a killed run"
LIST, READ, WRITE, DELETE = "s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"
EACH = f"{LIST} {READ} {WRITE} {DELETE}"
PARQUET_BY_YEAR = "processed/quarantine_by_year processed/stocks_daily_by_year"
PARQUET = "processed/quarantine processed/stocks_daily"
REGISTERED_BY_JOBS = (
    ".locks/corporate_actions.lease .locks/curated_stocks_daily.lease .locks/processed_actions.lease "
    ".locks/stocks_features.lease"
)
LOGS_BY_JOBS = (
    "curated/corporate_actions/_delta_log curated/stocks_daily/_delta_log curated/stocks_features/_delta_log "
    "processed/actions/_delta_log"
)
# Rights that no chapter uses, without those to UNASKED actions.
REASONS = (
    # Services that act in the name of who asks, or that answer otherwise than the servers of the tests.
    Reason(IN_ITS_NAME, "run run-jobs reader quicksight", "List Write", f"{LIST} {WRITE}", "athena-results"),
    Reason(IN_ITS_NAME, "run run-jobs reader quicksight", "ResultsBucket", "s3:GetBucketLocation", "."),
    Reason(IN_ITS_NAME, "run run-jobs reader quicksight", "ResultsParts", "s3:ListMultipartUploadParts", "athena-results"),
    Reason(IN_ITS_NAME, "run run-jobs reader quicksight", "QueriedTables", "glue:BatchGetPartition glue:GetPartition"),
    Reason(IN_ITS_NAME, "reader quicksight", "QueriedTables", "glue:GetDatabase glue:GetPartitions glue:GetTable"),
    Reason(IN_ITS_NAME, "quicksight", "QueriedTables", "glue:GetTables"),
    Reason(IN_ITS_NAME, "reader quicksight", "Key", "kms:GenerateDataKey"),
    Reason(IN_ITS_NAME, "quicksight", "Key", "kms:Decrypt"),
    Reason(
        IN_ITS_NAME + ", for data sets of ours and of authors", "quicksight", "List Read", f"{LIST} {READ}",
        f"athena-results curated/corporate_actions curated/restatements curated/stocks_daily curated/stocks_features {PARQUET} "
        f"{PARQUET_BY_YEAR} raw/stocks_daily reports serving stream/live_features stream/losses stream/minute_bars "
        "stream/raw_ticks stream/reconciliation",
    ),
    Reason(
        "Redshift plans queries with it", "spectrum", "Registered",
        "glue:BatchGetPartition glue:GetDatabase glue:GetPartition glue:GetTables",
    ),
    Reason(
        "queries through the external schema", "spectrum", "List Read", f"{LIST} {READ}",
        f"{PARQUET} {PARQUET_BY_YEAR} raw/stocks_daily",
    ),
    Reason(
        "the emulator's crawlers make no tables; catalog/test_crawlers.py has their calls", "run run-jobs",
        "AnyCrawler CrawlerRole Crawlers",
        "glue:CreateCrawler glue:GetCrawlerMetrics iam:PassRole glue:GetCrawler glue:StartCrawler glue:UpdateCrawler",
    ),
    Reason(
        "the launcher of runs on ECS, which no server of the tests has", "dagster",
        "FollowRuns RunRoles RunTaskDefinition StartRuns",
        "ecs:DescribeTasks ecs:StopTask ecs:TagResource iam:PassRole ecs:DescribeTaskDefinition ecs:RunTask",
    ),
    Reason(
        "Dagster on ECS keeps there what runs print", "run run-jobs upkeep stream dagster", "List Read Write",
        f"{LIST} {READ} {WRITE}", ".dagster/logs",
    ),
    # What happens seldom.
    Reason("a query's time is over, or Ctrl-C", "run run-jobs reader quicksight", "Queries", "athena:StopQueryExecution"),
    Reason(
        "a statement's time is over", "run run-jobs upkeep repair", "StatementsSent", "redshift-data:CancelStatement"
    ),
    Reason("the settings of the workgroup have changed", "run run-jobs", "Workgroup", "athena:UpdateWorkGroup"),
    Reason(
        "the layout, or what is partitioned, has changed", "run run-jobs", "Catalog",
        "glue:BatchDeletePartition glue:DeleteTable",
    ),
    Reason(
        CHANGED, "run run-jobs", "QuickSightSets QuickSightSource",
        "quicksight:UpdateDataSet quicksight:UpdateDataSource quicksight:UpdateDataSourcePermissions",
    ),
    Reason(
        "AWS' reference names the source of the rows alone, its text also the data set", "run run-jobs",
        "QuickSightSets", "quicksight:CreateDataSet",
    ),
    Reason("a damaged part of a compaction is replaced", "run run-jobs job repair", "Delete", DELETE, "processed/raw_compacted"),
    Reason("a year of a ticker ends in a table by year", "run", "Delete", DELETE, PARQUET_BY_YEAR),
    Reason("who writes to a place also reads it", "run run-jobs", "Read", READ, "reports"),
    Reason("who writes to a place also reads and lists it", "repair", "List Read", f"{LIST} {READ}", ".damaged"),
    Reason(OF_CLEANING, "upkeep", "Delete", DELETE,
           f"curated/corporate_actions curated/restatements processed/actions {PARQUET} processed/raw_compacted "
           "stream/minute_bars stream/raw_ticks"),
    Reason(OF_CLEANING, "repair", "Delete", DELETE,
           ".staging curated/restatements processed/actions processed/quarantine serving stream/minute_bars stream/raw_ticks"),
    Reason(OF_CLEANING, "stream", "Delete", DELETE, "stream/live_features stream/minute_bars stream/raw_ticks"),
    Reason("no repair was killed before, and no session staged a frame", "upkeep", "Read", READ, ".repairs .staging"),
    Reason(
        "a log is cut, and a copy is made again, after months", "upkeep", "Write", WRITE,
        "serving stream/minute_bars stream/raw_ticks",
    ),
    Reason("a runner holds the lease", "upkeep dagster", "List", LIST, ".locks/stream.lease"),
    Reason(
        "the emulated stream loses no messages", "run dagster stream upkeep", "Read Write", f"{READ} {WRITE}", "stream/losses"
    ),
    # What another role does in its chapters.
    Reason('`layout = "year"`, ' + AS_RUN, "run-jobs job upkeep repair reader", "List Read Write Delete", EACH, PARQUET_BY_YEAR),
    Reason("`doctor` in a task, " + AS_RUN, "run run-jobs stream", "List Read Write Delete", EACH, ".locks/doctor-*"),
    Reason(
        "a published row is corrected, " + AS_RUN, "job repair", "List Write", f"{LIST} {WRITE}",
        ".locks/restatements.lease curated/restatements",
    ),
    Reason("Spark on the JVM, in test_jvm.py", "job", "Delete", DELETE,
           "curated/corporate_actions/_delta_log/.*.tmp curated/restatements/_delta_log/.*.tmp "
           "curated/stocks_daily/_delta_log/.*.tmp curated/stocks_features/_delta_log/.*.tmp "
           "processed/actions/_delta_log/.*.tmp"),
    Reason("rows that are replaced, " + AS_RUN, "job", "Delete", DELETE, PARQUET),
    Reason(
        "a compaction, " + AS_RUN, "job repair run-jobs", "Read Write", f"{READ} {WRITE}", "processed/raw_compacted"
    ),
    Reason("frames of a session, " + AS_RUN, "repair", "Read Write", f"{READ} {WRITE}", ".staging"),
    Reason(
        "a table that no job has made yet is made for the catalog", "run-jobs", "List Read Write",
        f"{LIST} {READ} {WRITE}", f"{REGISTERED_BY_JOBS} {LOGS_BY_JOBS}",
    ),
    Reason("a second landing, and a second report, " + AS_RUN, "run-jobs", "Read Write", f"{READ} {WRITE}",
           ".staging processed/stocks_daily serving"),
    Reason("a catalog of a stream, " + AS_RUN, "run-jobs", "Read", READ,
           "stream/live_features stream/losses stream/minute_bars stream/raw_ticks stream/reconciliation"),
    Reason("who reads by SQL or with a notebook reads each of them", "reader", "List Read", f"{LIST} {READ}",
           "reports curated/restatements stream/live_features stream/losses stream/minute_bars stream/raw_ticks "
           "stream/reconciliation"),
    Reason("a stream with these tables, played as `upkeep`", "repair", "Read", READ,
           "stream/live_features stream/losses stream/reconciliation"),
    Reason("a stream with these tables, played as `stream`", "dagster", "List Read", f"{LIST} {READ}",
           "stream/live_features stream/reconciliation"),
    Reason("a session that a cluster has staged", "stream", "List Read", f"{LIST} {READ}", ".staging"),
)  # fmt: skip


def played(place: World, chapter: Chapter, folder: Path) -> Record:
    """What `chapter` asked for. Raises FailedError if a command failed."""
    began = time.monotonic()
    with _prepared(place, chapter, folder) as stage:
        stage.play(chapter.act, chapter.role, chapter.name)
        record = place.record()
    record.seconds = time.monotonic() - began
    return record


@contextlib.contextmanager
def _prepared(place: World, chapter: Chapter, folder: Path) -> Iterator[Stage]:
    """A stage with what was there before `chapter`."""
    with place.staged(chapter.given, folder) as stage:
        chapter.before(stage)
        place.record()
        yield stage


# Rights that are for nothing


def unused(place: World, records: Iterable[Record]) -> tuple[list[str], list[str]]:
    """The grants that no record used and no reason of REASONS explains; and the words of reasons for which there is none."""
    used: set[tuple[str, str, str, str]] = set()
    for record in records:
        for role, found in record.used.items():
            used |= {(role, *_form(grant)) for grant in found}
    given: set[tuple[str, str, str, str]] = set()
    for name in place.roles.keys() - UNPLAYED.keys():
        given |= {(name, *_form(grant)) for grant, _ in grants(place.policies_of(place.roles[name], PREFIX))}
    left = sorted(right for right in given - used if right[2] not in UNASKED)
    unexplained = [" ".join(right) for right in left if not any(reason.explains(right) for reason in REASONS)]
    return unexplained, [f"{word} ({reason.why})" for reason in REASONS for word in _needless(reason, left)]


def _needless(reason: Reason, left: Iterable[tuple[str, str, str, str]]) -> list[str]:
    """The words of `reason` that are in none of the rights `left` that it explains."""
    explained = [right for right in left if reason.explains(right)]
    return [
        word
        for number, words in enumerate(reason.words)
        for word in words
        if not any(right[number] == word for right in explained)
    ]


def _form(grant: Grant) -> tuple[str, str, str]:
    """A grant without the names of a stage: statement, action, and the place, in which a folder and its keys are one.

    Of other services a statement's resources belong together, like a catalog, its database and its tables.
    """
    if not grant.action.startswith("s3:"):
        return grant.sid, grant.action, "-"
    place = re.sub(r"^(arn:[^:]*:s3:::[^/]+)?(/?team/\w+)?", "", grant.place)
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


def droppable(records: Mapping[str, Record], role: str) -> dict[str, list[tuple[str, str]]]:
    """Each action of each statement of `role` that chapters used, by the quickest of them, in the order of its needs.

    By a chapter that only diagnoses if no other uses the action. Without those of OPTIONAL.
    """
    diagnoses = {chapter.name: chapter.diagnoses for chapter in CHAPTERS}
    found: dict[str, list[tuple[str, str]]] = {}
    known: set[tuple[str, str]] = set()
    for name in sorted(records, key=lambda name: (diagnoses[name], records[name].seconds)):
        used = dict.fromkeys(
            (grant.sid.removesuffix("More"), grant.action) for grant in records[name].used.get(role, ())
        )
        if rights := [right for right in used if right not in known and right[1] not in OPTIONAL]:
            found[name] = rights
            known.update(rights)
    return found


def survivors(
    place: World, chapter: Chapter, role: str, rights: Iterable[tuple[str, str]], folder: Path
) -> Iterator[str]:
    """Play `chapter` without each of `rights`, statement and action, of `role`; those that it does not miss by name, and why.

    It misses a right if what it says names the action: mostly an error, or a line with which it goes on. What Redshift says of
    the role `spectrum` is Redshift's: there it has to fail.

    All rights are dropped on one stage, in the order in which the chapter first needs them: without the one it does not come to
    what needs the next. A right that is not asked for, because a play before has done what needs it, is dropped on a fresh stage.
    """
    again = []
    with _prepared(place, chapter, folder / "together") as stage:
        for right in rights:
            said = _missed(stage, chapter, role, *right)
            if said is None:
                again.append(right)
            elif said:
                yield said
    for number, right in enumerate(again):
        with _prepared(place, chapter, folder / str(number)) as stage:
            said = _missed(stage, chapter, role, *right)
            if said != "":
                yield said or f"{chapter.name} without {' '.join(right)} of {role}: nothing asks for it"


def _missed(stage: Stage, chapter: Chapter, role: str, sid: str, action: str) -> str | None:
    """Empty if the chapter misses `action` by name; what happened otherwise; None if it was not refused."""
    place = stage.world
    what = f"{chapter.name} without {sid} {action} of {role}"
    stage.policies = {role: without(place.policies_of(place.roles[role], stage.prefix), sid, action)}
    stage.lines.clear()
    place.record()
    error = None
    try:
        stage.play(chapter.act, chapter.role, chapter.name)
    except Exception as failure:  # noqa: BLE001 - whatever it is, its text must name the action
        error = failure
    refused = place.record().refusals(chapter.name, chapter.refused)
    if not any(text.startswith(f"{role}: {action} on ") for text in refused):
        return None
    said = stage.said if error is None else f"{error}\n{stage.said}"
    is_named = action in " ".join(said.split())  # lines are broken where they end
    if is_named or (role == "spectrum" and error is not None):
        return ""
    outcome = f"goes on although it was refused {refused[:2]}" if error is None else "fails, and does not name it"
    return f"{what} {outcome}:\n{said[-1500:]}"


# The documentation


def written(text: str, records: Mapping[str, Record]) -> str:
    """The document `text` with the table of what each command asked for, by role, as recorded."""
    lines = ["", "| role | command | S3 | other services |", "|---|---|---|---|"]
    for chapter in CHAPTERS:
        by_role: dict[str, set[Asked]] = {}
        for _, role, asked in records[chapter.name].asked:
            by_role.setdefault(role, set()).add(asked)
        for role, found in sorted(by_role.items(), key=lambda item: (item[0] != chapter.role, item[0])):
            lines.append(f"| `{role}` | {chapter.name} | {_by_service(found, S3)} | {_by_service(found)} |")
    table = "\n".join([*lines, "", ""])
    return MARKS.sub(lambda _: table, text)


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
        with world(engine.session, Lakes(lakes)) as place:
            records = {chapter.name: played(place, chapter, Path(folder, str(n))) for n, chapter in enumerate(CHAPTERS)}
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8"), records), encoding="utf-8")
    engine.teardown_after_execution(None)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
