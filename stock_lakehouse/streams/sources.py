"""The source that the settings name. Not here: the sources themselves; their clients are imported for the one that is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stock_lakehouse.clock import Clock
from stock_lakehouse.streams import StreamSource

if TYPE_CHECKING:
    from stock_lakehouse.settings import Stream


def source_of(settings: Stream, clock: Clock) -> StreamSource:
    """The source of `settings`, whose `source` is not off. Nothing is contacted."""
    if settings.source == "kafka":
        from stock_lakehouse.streams.kafka import KafkaSource

        return KafkaSource(settings, clock)
    if settings.source == "kinesis":
        from stock_lakehouse.streams.kinesis import KinesisSource

        return KinesisSource(settings.name, clock)
    from stock_lakehouse.streams.files import FilesSource

    assert settings.folder is not None
    return FilesSource(settings.folder, settings.name, clock)
