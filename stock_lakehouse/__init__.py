"""A data platform for daily stock prices: README.md says what it does, docs/architecture.md how."""

import warnings

# Dagster says at every start that backfill policies, check and load options are in beta; requirements.lock pins what is tested.
warnings.filterwarnings("ignore", message=r".*is currently in beta, and may have breaking changes.*")

__version__ = "0.1.0"
