"""The order of Structured Streaming, as plain values that reach Databricks in the extras of Dagster Pipes.

Not here: what is done with it (structured.py, batches.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from stock_lakehouse.lake_options import LakeOptions

KIND = "stream"  # value of `kind`, by which a job knows the order
CHECKPOINTS = "stream/_checkpoints"


@dataclass(frozen=True)
class StreamOrder:
    """An order to read a stream by Structured Streaming.

    - source: identity of the stream with its incarnation, which was compared before the order was made
    - checkpoint: id of the checkpoint; its folder is `folder` under the lake's root
    - starts: where a new checkpoint begins, by partition; for Kinesis, whose source cannot be told, what is dropped before
    - since: Kinesis: time from which a new checkpoint reads, ISO 8601 (None: from the oldest message)
    - options: the lake's options, in the form of `LakeOptions.as_json`
    - settings: the settings under [stream] without the password
    - authority: the certificates of `ca_file`
    - region: Kinesis: of the stream
    - follows: whether it stays and follows the stream; else it ends at the ends as they are at its start
    - minutes: how long a drain may take
    - live: whether a drain computes live features at its end; an order that follows does, as the settings say
    - own_source: the text of the file of own indicators, which a job does not have
    - run_id: the Dagster run; empty without one
    """

    source: str
    checkpoint: str
    starts: dict[str, int]
    options: dict[str, Any]
    settings: dict[str, Any]
    since: str | None = None
    authority: str | None = None
    region: str | None = None
    follows: bool = False
    minutes: float = 60.0
    live: bool = False
    own_source: str | None = None
    run_id: str = ""
    kind: str = field(default=KIND)

    def extras(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, extras: Mapping[str, Any]) -> StreamOrder:
        return cls(**extras)

    @property
    def name(self) -> str:
        """The name of the order in the workspace."""
        return "stream_run" if self.follows else "stream_drain"

    @cached_property
    def lake_options(self) -> LakeOptions:
        return LakeOptions.model_validate(self.options)

    @cached_property
    def stream_settings(self) -> Any:
        """The settings by name. A cluster has no pydantic-settings, so this is not the class `Stream`."""
        return SimpleNamespace(**self.settings)

    @property
    def folder(self) -> str:
        return f"{CHECKPOINTS}/{self.checkpoint}"
