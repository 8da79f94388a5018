"""stream_losses: what a stream lost, and who accepted that. A line counts once the position of its partition is past it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stock_lakehouse.lake.storage import LakeRoot
from stock_lakehouse.lake.stream_table import StreamTable
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.tables import STREAM_LOSSES

if TYPE_CHECKING:
    import pyarrow as pa

LINES = "lines"  # a number of the log, as a fence: how many lines there are


class LossTable(StreamTable):
    """The table stream_losses."""

    def __init__(self, options: LakeOptions | LakeRoot, versions_hours: int) -> None:
        super().__init__(options, STREAM_LOSSES, versions_hours, LINES)

    def rows(self) -> pa.Table:
        """All lines; none if nothing was lost."""
        if not self.exists():
            return self.no_rows()
        return self.open().to_pyarrow_dataset().to_table().cast(self.table.arrow_schema)

    def add(self, lines: pa.Table) -> None:
        """Append those of `lines` whose key is not there yet: a killed acceptance is repeated and writes no line twice."""
        self.prepare()
        self.begin()
        key = list(self.table.key)
        new = lines.join(self.rows().select(key), key, join_type="left anti").select(self.table.column_names)
        if new.num_rows:
            self.commit(self.append_to(new), {LINES: (self.number(LINES) or 0) + new.num_rows})
