"""Losses of the stream: ranges of messages that its source no longer had, and the decision to go on without them."""

from stock_lakehouse.schemas import Column

COLUMNS = (
    Column("source", "string", "The stream, like files:stock_ticks", nullable=False),
    Column("partition", "string", "Partition of the stream", nullable=False),
    Column("from_offset", "string", "First position that could not be read, in the form of raw_ticks", nullable=False),
    Column("to_offset", "string", "Position behind the last one that could not be read", null="nobody knows"),
    Column("cause", "string", "What the runner found", nullable=False),
    Column("why", "string", "Why the loss was accepted, in the words of who did", nullable=False),
    Column("accepted_by", "string", "Who accepted it: user and host", nullable=False),
    Column(
        "accepted_at",
        "timestamp",
        "When it was accepted; it counts once the stream's position is past it",
        False,
        unit="UTC",
    ),
)
