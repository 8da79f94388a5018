"""Reconciliation: the minutes of a session beside its official daily bar."""

from stock_lakehouse.schemas import SESSION_DATE, TICKER, Column

VERDICTS = ("match", "differs", "partial", "no official bar", "no minutes", "replay")
ONE_MISSING = "there are no minutes, or no official bar with this value"


def difference(name: str) -> Column:
    """A column with the difference of a price."""
    return Column(
        f"{name}_difference",
        "double",
        f"{name} of the minutes divided by that of the official bar as it was traded, minus 1",
        unit="fraction",
        null=ONE_MISSING,
    )


def count(name: str, description: str, unit: str = "minutes") -> Column:
    """A column with a number."""
    return Column(name, "bigint", description, nullable=False, minimum=0, unit=unit)


COLUMNS = (
    TICKER,
    SESSION_DATE,
    count("minutes_expected", "Minutes from the session's open to its close, both included"),
    count("minutes_present", "Minutes of these in which the ticker has a bar"),
    count("stream_minutes", "Minutes of these in which any ticker has a bar"),
    difference("open"),
    difference("high"),
    difference("low"),
    difference("close"),
    Column(
        "volume_ratio",
        "double",
        "Volume of the minutes divided by that of the official bar as it was traded",
        minimum=0,
        unit="ratio",
        null=f"{ONE_MISSING}, or it is 0",
    ),
    count("events", "Events in these minutes", "events"),
    count("late_events", "Events of these that came late", "events"),
    Column("bar_status", "string", "Status of the official bar", one_of=("final", "provisional"), null="there is none"),
    Column("compared_at", "timestamp", "When the two were compared", nullable=False, unit="UTC"),
    Column(
        "verdict",
        "string",
        "match: all within the tolerances. differs: something is not. partial: the stream has less than 95 % of the session's "
        "minutes. replay: the minutes are of another day than their session. no official bar, no minutes: nothing to compare",
        nullable=False,
        one_of=VERDICTS,
    ),
)
