"""`python -m dionysus`."""

from dionysus.cli import main

main()
