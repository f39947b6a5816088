"""`python -m tunewright`, as torchrun starts it."""

from tunewright.cli import main

main()
