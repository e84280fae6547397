"""One run from start to end: setup, rounds, checkpoints, stopping, resuming, recovery; and suites of runs."""
