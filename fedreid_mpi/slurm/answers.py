"""What SLURM's programs print, as sites have it: headings and banners appear between the lines asked for.

With several clusters each list begins with a line ``CLUSTER: name``; wrappers and plugins add words of their
own. What has not the form that was asked for is passed over.
"""

import re
from collections.abc import Iterator

_NUMBER = re.compile(r"(\d+)(?:;\S+)?", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", re.ASCII)


def rows(text: str, columns: int) -> Iterator[list[str]]:
    """Yield the lines that have so many columns, with ``|`` in between; the last may hold more of it."""
    for line in text.splitlines():
        words = [word.strip() for word in line.split("|", columns - 1)]
        if len(words) == columns:
            yield words


def job_number(text: str) -> str:
    """Return the number in what ``sbatch --parsable`` printed; empty: there is none."""
    matches = [_NUMBER.fullmatch(line.strip()) for line in text.splitlines()]
    return next((match[1] for match in reversed(matches) if match), "")


def moment(text: str) -> str:
    """Return the first time, in ISO 8601, that is a line of its own; empty: there is none."""
    return next((line.strip() for line in text.splitlines() if _MOMENT.fullmatch(line.strip())), "")
