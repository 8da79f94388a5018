"""Who may do what: every right and every refusal, and whether a change of any policy would be noticed."""

from __future__ import annotations

from stock_lakehouse_tests.deployment.matrix import rows
from stock_lakehouse_tests.deployment.simulate import evaluate
