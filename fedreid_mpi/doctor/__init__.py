"""What a machine or an allocation offers to a run, and which problems are likely there.

Facts are gathered (`machine`, `storage`), joined on the server (`examine`), and judged by pure functions
(`judge`).
"""

from fedreid_mpi.doctor.examine import examine
from fedreid_mpi.doctor.facts import Report
from fedreid_mpi.doctor.judge import Finding, Level, judge
from fedreid_mpi.doctor.machine import Surroundings, look_around

__all__ = ["Finding", "Level", "Report", "Surroundings", "examine", "judge", "look_around"]
