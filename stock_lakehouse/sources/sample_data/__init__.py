"""The files of the sample, and the fact of them that the settings need. Not here: how they are read (sources/sample.py)."""

from __future__ import annotations

from datetime import date

SAMPLE_LAST = date(2023, 9, 21)  # the last session of the sample
