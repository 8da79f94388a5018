"""The features of a session: the list of indicators (registry.py) and how each is computed (kernel.py)."""
