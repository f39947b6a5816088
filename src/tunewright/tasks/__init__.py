"""The table of tasks: one line each, and whatever the entry points `tunewright.tasks` add."""
