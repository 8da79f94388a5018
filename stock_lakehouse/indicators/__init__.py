"""The features of a session: which there are (registry.py), and how each is computed (kernel.py)."""
