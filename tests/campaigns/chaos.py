"""Campaigns that do harm at random, seeded moments, and check every promise afterwards: ``make chaos``.

Usage: PYTHONPATH=tests python -m campaigns.chaos [--seed N] [--count N] [CAMPAIGN...]

A campaign is a module of this folder with a function ``play(count, seed, folder)`` that yields a `Trial` for
each time that harm was done. Add a new one to `CAMPAIGNS`.
"""

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

CAMPAIGNS = {
    "kill": ("campaigns.chaos_kill", 50),
    "study": ("campaigns.chaos_study", 40),
    "losses": ("campaigns.chaos_losses", 54),
    "ranks": ("campaigns.chaos_ranks", 50),
    "damage": ("campaigns.fuzzing", 7000),
    "combinations": ("campaigns.chaos_combinations", 84),
}
"""Name to module, and how many trials it makes."""

TOLD = 50
"""Trials of a campaign, about, that are told of as they come; broken promises always are."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One act of harm and what came of it.

    Attributes
    ----------
    moment
        What the run was doing, in a word or two.
    broken
        The promise that was broken; empty: none was.
    """

    moment: str
    broken: str = ""


def main() -> int:
    """Play campaigns, print what comes of the trials, then a table; return 1 if a promise was broken."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("campaigns", nargs="*", choices=[[], *CAMPAIGNS], metavar="CAMPAIGN")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="instead of each campaign's own")
    options = parser.parse_args()
    table = Table("campaign", "trials", "promises kept", "minutes", "moments", title="chaos")
    broken = []
    for name in options.campaigns or CAMPAIGNS:
        module, count = CAMPAIGNS[name]
        count = options.count or count
        began = time.monotonic()
        trials: list[Trial] = []
        with tempfile.TemporaryDirectory(prefix="chaos") as folder:
            try:
                for trial in import_module(module).play(count, options.seed, Path(folder)):
                    trials.append(trial)
                    if trial.broken or len(trials) % max(1, count // TOLD) == 0:
                        kept = trial.broken or "promises kept"
                        print(f"{name} {len(trials)}/{count}: {trial.moment}: {kept}", flush=True)
            except Exception as error:  # noqa: BLE001 (the other campaigns go on)
                traceback.print_exc()
                broken.append(f"{name}: the campaign did not come to its end: {error!r}")
        failed = [trial for trial in trials if trial.broken]
        moments = Counter(trial.moment for trial in trials).most_common()
        table.add_row(
            name,
            str(len(trials)),
            str(len(trials) - len(failed)),
            f"{(time.monotonic() - began) / 60:.1f}",
            ", ".join(f"{moment} {number}" for moment, number in moments),
        )
        broken += [f"{name}: {trial.moment}: {trial.broken}" for trial in failed]
        print(f"{name}: promises kept in {len(trials) - len(failed)} of {len(trials)}", flush=True)
    console = Console(width=140)
    console.print(table)
    for line in broken:
        console.print(line, markup=False)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
