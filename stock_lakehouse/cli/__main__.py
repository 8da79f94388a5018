"""`python -m stock_lakehouse.cli`."""

from stock_lakehouse.cli import main

main()
