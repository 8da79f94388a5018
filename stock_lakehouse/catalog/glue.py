"""The lake's tables in a Glue database: an upsert that writes only what differs, and errors by name.

Here: the calls. Not here: what is registered (registration.py), crawlers (crawlers.py), whether catalog and lake agree
(agreement.py), and views of reports (sql/). Each write can be killed and the registration run again: see `GlueCatalog.register`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from stock_lakehouse import aws
from stock_lakehouse.catalog.entries import State
from stock_lakehouse.catalog.registration import Registration, Values, prepare, registrations_of
from stock_lakehouse.lake.storage import LakeError
from stock_lakehouse.sql.engine import PermissionMissingError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

    from stock_lakehouse.lake import Lake

WIDENED = {("int", "bigint"), ("float", "double")}  # type changes that lose no value

# Parameters of this program.
# Of a table: a digest of its registered partitions; absent while they are being written.
PARTITIONS = "lakehouse.partitions"
# Of a partition: a digest of what it says besides its place, such as the columns.
STORAGE = "lakehouse.storage"
STATISTICS = ("recordCount", "sizeKey", "objectCount")

A_WRITE, A_DELETE, A_PAGE = 100, 25, 1000  # partitions of a call, Glue's limits
WRITES = ("Create", "Update", "Delete", "BatchCreate", "BatchUpdate", "BatchDelete", "Start", "Stop")


class CatalogError(LakeError):
    """The catalog could not be brought to what the lake has. The message says what to do."""


class CatalogTypeError(CatalogError):
    """A column is registered as a type whose values the schema's type cannot hold. The message names both types."""


class CatalogConflictError(CatalogError):
    """A table of the same name is registered at another place. The message names both places."""


@dataclass
class Outcome:
    """What a registration did to a table.

    - action: created, replaced (other partition keys), updated or unchanged
    - dropped: columns that it had and the schema has not
    - added, moved, removed: partitions
    - left_out: files of the lake that SQL engines do not see
    """

    name: str
    action: str
    dropped: list[str] = field(default_factory=list)
    added: int = 0
    moved: int = 0
    removed: int = 0
    left_out: int = 0

    @property
    def changed(self) -> bool:
        return self.action != "unchanged" or bool(self.added or self.moved or self.removed)

    def as_json(self) -> dict[str, Any]:
        """For a table of metadata."""
        return {**asdict(self), "dropped": ", ".join(self.dropped)}

    def __str__(self) -> str:
        counts = {"added": self.added, "moved": self.moved, "removed": self.removed}
        partitions = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        columns = f"; without {', '.join(self.dropped)}" if self.dropped else ""
        return f"{self.action}{columns}" + (f"; partitions: {partitions}" if partitions else "")


def register_lake(lake: Lake, catalog: GlueCatalog, verify: bool = False, crawled: bool = False) -> list[Outcome]:
    """Prepare `lake` for SQL engines and register it; see `prepare` and `GlueCatalog.register`."""
    prepare(lake)
    return catalog.register(registrations_of(lake), verify, crawled)


class GlueCatalog:
    """A Glue database with the tables of one lake.

    - database: created by `register` if it does not exist
    - root: s3://bucket/prefix of the lake. A table that is registered at a place outside it belongs to another lake.
    - client: None for one by boto3's variables and profiles, with bounded retries
    - calls: how often each operation was called, by name, without retries
    """

    def __init__(self, database: str, root: str, client: Any = None) -> None:
        self.database, self.root = database, root.rstrip("/")
        self.client = client or aws.client("glue")
        self.calls: Counter[str] = Counter()
        self.client.meta.events.register("provide-client-params.glue", self._count)

    def _count(self, model: Any, **_: Any) -> None:
        self.calls[model.name] += 1

    @property
    def writes(self) -> int:
        """How many calls could have changed the catalog."""
        return sum(count for name, count in self.calls.items() if name.startswith(WRITES))

    def tables(self) -> dict[str, dict[str, Any]]:
        """Every table of the database, by name, as Glue has it; none if there is no database."""
        with named_errors(self.database):
            pages = self.client.get_paginator("get_tables").paginate(DatabaseName=self.database)
            try:
                return {table["Name"]: table for page in pages for table in page["TableList"]}
            except self.client.exceptions.EntityNotFoundException:
                return {}

    def partitions(self, name: str) -> dict[Values, dict[str, Any]]:
        """The partitions of a table, by their values, each with its Location and Parameters."""
        with named_errors(f"{self.database}.{name}"):
            pages = self.client.get_paginator("get_partitions").paginate(
                DatabaseName=self.database,
                TableName=name,
                ExcludeColumnSchema=True,
                PaginationConfig={"PageSize": A_PAGE},
            )
            return {
                tuple(found["Values"]): {
                    "Location": found.get("StorageDescriptor", {}).get("Location", ""),
                    "Parameters": found.get("Parameters", {}),
                }
                for page in pages
                for found in page["Partitions"]
            }

    def register(self, wanted: Sequence[Registration], verify: bool = False, crawled: bool = False) -> list[Outcome]:
        """Bring the database to `wanted`; write only what differs. What others noted on a table stays.

        - verify: compare every partition. Otherwise a table whose digest of partitions is the wanted one is not listed, which
          takes one call for the whole database, and does not notice what others did to partitions.
        - crawled: leave the partitions of the tables of plain files to crawlers. Those of the serving copy are registered.

        Nothing is written if a column has a type that cannot be changed. A killed registration is completed by the next one: the
        digest of a table's partitions is removed before the first of them is written, and set after the last.

        Raises CatalogTypeError, CatalogConflictError, CatalogError, PermissionMissingError.
        """
        registered = self.tables()
        for registration in wanted:
            if present := registered.get(registration.name):
                self._check(registration, present)
        if not registered:
            self._create_database()
        return [
            self._register(
                registration, registered.get(registration.name), verify, registration.is_serving_copy or not crawled
            )
            for registration in wanted
        ]

    def _check(self, registration: Registration, present: Mapping[str, Any]) -> None:
        """Raise CatalogConflictError or CatalogTypeError if `present` cannot become what is wanted."""
        name = f"{self.database}.{registration.name}"
        place = str(present.get("StorageDescriptor", {}).get("Location", ""))
        if place and not f"{place}/".startswith(f"{self.root}/"):
            raise CatalogConflictError(
                f"{name} is registered at {place}, which is not in the lake {self.root}; set aws.glue_database to another name, "
                f"or delete the table of the other lake: aws glue delete-table --database-name {self.database} --name "
                f"{registration.name}"
            )
        before, after = columns_of(present), columns_of(registration.wanted)
        for column, kind in after.items():
            if before.get(column, kind) != kind and (before[column], kind) not in WIDENED:
                raise CatalogTypeError(
                    f"{name}: column {column} is registered as {before[column]}, and the schema has {kind}; readers of the old "
                    f"type would fail. If that is wanted: aws glue delete-table --database-name {self.database} --name "
                    f"{registration.name}, and run again"
                )

    def _create_database(self) -> None:
        with named_errors(self.database):
            try:
                self.client.get_database(Name=self.database)
                return
            except self.client.exceptions.EntityNotFoundException:
                pass
            database = {
                "Name": self.database,
                "Description": "Tables of a stock_lakehouse lake.",
                "LocationUri": self.root,
            }
            try:
                self.client.create_database(DatabaseInput=database)
            except self.client.exceptions.AlreadyExistsException:
                return  # another registration made it meanwhile

    def _register(
        self, registration: Registration, present: Mapping[str, Any] | None, verify: bool, partitions: bool
    ) -> Outcome:
        outcome = Outcome(registration.name, "unchanged", left_out=registration.left_out)
        with named_errors(f"{self.database}.{registration.name}"):
            if present is None:
                present = self._create(registration, {}, outcome)
            elif _names(present.get("PartitionKeys")) != _names(registration.wanted["PartitionKeys"]):
                # Partitions of other keys cannot be kept, and Glue deletes them with their table.
                self.client.delete_table(DatabaseName=self.database, Name=registration.name)
                present = self._create(registration, _foreign_parameters(present), outcome)
                outcome.action = "replaced"
            elif not says(present, registration.wanted):
                outcome.dropped = sorted(columns_of(present).keys() - columns_of(registration.wanted).keys())
                present = self._update(registration, present)
                outcome.action = "updated"
            if partitions and registration.partitions is not None:
                self._register_partitions(registration, present, outcome, verify)
        return outcome

    def _create(self, registration: Registration, parameters: Mapping[str, str], outcome: Outcome) -> Mapping[str, Any]:
        table = _with_parameters(registration.wanted, {**parameters, **_statistics(registration.state)})
        try:
            self.client.create_table(DatabaseName=self.database, TableInput=table)
        except self.client.exceptions.AlreadyExistsException:
            # Made by another registration, or by this call, whose first answer was lost.
            present: Mapping[str, Any] = self.client.get_table(DatabaseName=self.database, Name=registration.name)[
                "Table"
            ]
            self._check(registration, present)
            return present if says(present, registration.wanted) else self._update(registration, present)
        outcome.action = "created"
        return table

    def _update(
        self, registration: Registration, present: Mapping[str, Any], digest: str | None = None
    ) -> Mapping[str, Any]:
        """Write the table with `digest` of its partitions; None: without one, so that they are compared."""
        parameters = {**present.get("Parameters", {}), **_statistics(registration.state)}
        parameters.pop(PARTITIONS, None)
        if digest is not None:
            parameters[PARTITIONS] = digest
        table = _merged(present, _with_parameters(registration.wanted, parameters))
        # Glue keeps a version of the table for each update, up to a limit; nobody needs those.
        self.client.update_table(DatabaseName=self.database, TableInput=table, SkipArchive=True)
        return table

    def _register_partitions(
        self, registration: Registration, present: Mapping[str, Any], outcome: Outcome, verify: bool
    ) -> None:
        wanted, digest = registration.partitions or {}, registration.partitions_digest
        has_digest = PARTITIONS in present.get("Parameters", {})
        if not verify and present.get("Parameters", {}).get(PARTITIONS) == digest:
            return
        found = {} if outcome.action == "created" else self.partitions(registration.name)
        added = [values for values in wanted if values not in found]
        moved = [
            values for values in wanted if values in found and not _stands(found[values], wanted[values], registration)
        ]
        removed = [values for values in found if values not in wanted]
        if (added or moved or removed) and has_digest:
            present = self._update(registration, present)
        place = {"DatabaseName": self.database, "TableName": registration.name}

        def input_of(values: Values) -> dict[str, Any]:
            return _partition_input(registration, values, found.get(values, {}).get("Parameters", {}))

        for part in _parts(added, A_WRITE):
            self._batch("batch_create_partition", place, PartitionInputList=[input_of(values) for values in part])
        for part in _parts(moved, A_WRITE):
            entries = [{"PartitionValueList": list(values), "PartitionInput": input_of(values)} for values in part]
            self._batch("batch_update_partition", place, Entries=entries)
        for part in _parts(removed, A_DELETE):
            gone = [{"Values": list(values)} for values in part]
            self._batch("batch_delete_partition", place, PartitionsToDelete=gone)
        outcome.added, outcome.moved, outcome.removed = len(added), len(moved), len(removed)
        if present.get("Parameters", {}).get(PARTITIONS) != digest:
            self._update(registration, present, digest)

    def _batch(self, operation: str, place: Mapping[str, str], **items: Any) -> None:
        """A call for several partitions, whose answer lists those that failed although its status is 200."""
        errors = getattr(self.client, operation)(**place, **items).get("Errors", [])
        # A deleted partition may be gone already.
        refused = [
            error
            for error in errors
            if not (operation == "batch_delete_partition" and _code_of(error) == "EntityNotFoundException")
        ]
        if refused:
            first = refused[0]
            values = ", ".join(first.get("PartitionValues") or first.get("PartitionValueList") or ())
            detail = first.get("ErrorDetail", {})
            raise CatalogError(
                f"{place['DatabaseName']}.{place['TableName']}: Glue refused {len(refused)} of {len(*items.values())} "
                f"partitions, the first ({values}) with {detail.get('ErrorCode')}: {detail.get('ErrorMessage')}; run again: "
                "what was registered stays"
            )


def _code_of(error: Mapping[str, Any]) -> str:
    return str(error.get("ErrorDetail", {}).get("ErrorCode", ""))


def columns_of(table: Mapping[str, Any]) -> dict[str, str]:
    """The columns of a table of Glue with their types, partition keys last."""
    columns = (*table.get("StorageDescriptor", {}).get("Columns", ()), *table.get("PartitionKeys", ()))
    return {column["Name"]: str(column.get("Type", "")).lower().replace(" ", "") for column in columns}


def says(present: Any, wanted: Any) -> bool:
    """Whether `present` says all that `wanted` does: a service adds fields of its own, and other people parameters."""
    if isinstance(wanted, Mapping):
        return isinstance(present or {}, Mapping) and all(
            says((present or {}).get(name), value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return len(wanted) == len(present or []) and all(map(says, present or [], wanted))
    return bool(present == wanted or (not wanted and not present))


def _merged(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The TableInput `wanted` with what others set in fields that it does not have."""
    kept = {name: present[name] for name in ("Retention", "LastAnalyzedTime", "LastAccessTime") if name in present}
    storage = {**present.get("StorageDescriptor", {}), **wanted["StorageDescriptor"]}
    return {**kept, **wanted, "StorageDescriptor": storage}


def _with_parameters(wanted: Mapping[str, Any], parameters: Mapping[str, str]) -> dict[str, Any]:
    return {**wanted, "Parameters": {**parameters, **wanted["Parameters"]}}


def _foreign_parameters(present: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in present.get("Parameters", {}).items() if name != PARTITIONS}


def _statistics(state: State) -> dict[str, str]:
    values = dict(zip(STATISTICS, (state.rows, state.bytes, state.files), strict=True))
    return {name: str(value) for name, value in values.items() if value is not None}


def _names(columns: Sequence[Mapping[str, Any]] | None) -> list[str]:
    return [column["Name"] for column in columns or ()]


def _stands(found: Mapping[str, Any], place: str, registration: Registration) -> bool:
    """Whether a registered partition has the wanted place, and was written for the present columns."""
    is_at_place: bool = found["Location"].rstrip("/") == place
    return is_at_place and found["Parameters"].get(STORAGE) == registration.storage_digest


def _partition_input(registration: Registration, values: Values, parameters: Mapping[str, str]) -> dict[str, Any]:
    return {
        "Values": list(values),
        "Parameters": {**parameters, STORAGE: registration.storage_digest},
        "StorageDescriptor": {**registration.partition_form, "Location": (registration.partitions or {})[values]},
    }


def _parts(items: Sequence[Values], size: int) -> Iterator[Sequence[Values]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def named_errors(what: str) -> AbstractContextManager[None]:
    """Errors of boto3 as errors of the catalog, which name `what` was worked on and say what to do."""
    return aws.named_errors(what, "Glue", "what was registered", CatalogError, _named)


def _named(error: ClientError, what: str) -> LakeError:
    code, message = aws.code_of(error), aws.message_of(error)
    right = aws.missing_right(message)
    if right or code in aws.DENIED:
        return PermissionMissingError(
            f"{what}: these credentials lack {right or f'glue:{error.operation_name}'}; allow it in IAM, and in Lake Formation "
            "if that governs the database (docs/aws.md lists what each asset needs)"
        )
    if code in aws.REJECTED:
        return PermissionMissingError(f"{what}: AWS rejects these credentials: {message}")
    if code in aws.THROTTLED:
        return CatalogError(
            f"{what}: Glue throttled {error.operation_name} {aws.ATTEMPTS} times; run again later: what was registered stays"
        )
    return CatalogError(
        f"{what}: Glue refused {error.operation_name} with {code}: {message}; run again: what was registered stays"
    )
