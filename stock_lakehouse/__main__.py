"""The program `stock-lakehouse`, also as `python -m stock_lakehouse`. A plain install lacks the platform, and is told so."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the program, or say in a line what to install."""
    try:
        from stock_lakehouse.cli import main as program
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("stock_lakehouse"):
            raise
        sys.exit(f"stock-lakehouse: {error.name} is not installed; pip install 'stock-lakehouse[platform]'")
    program()


if __name__ == "__main__":
    main()
