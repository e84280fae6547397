"""The command line: one thin module per command, imported only when it is called."""

import os
import sys
import time
from collections.abc import Sequence

import click

from fedreid_mpi import __version__
from fedreid_mpi.cli.console import print_error
from fedreid_mpi.cli.lazy import lazy_group
from fedreid_mpi.comm.mpi.launch import is_first
from fedreid_mpi.errors import FedReIDError
from fedreid_mpi.storage.access import private

COMMANDS = {
    "synth": "Write the synthetic benchmark as image files.",
    "prepare": "Turn dataset folders into HDF5 archives, with checks.",
    "inspect": "Show what is in an archive, a model or a file of weights.",
    "backbones": "List the networks that can be trained, with their size and memory.",
    "train": "Train a federation: under mpirun, or alone.",
    "study": "Run a suite of methods with several seeds.",
    "stop": "Stop a run cleanly, to be resumed later.",
    "evaluate": "Score trained models on dataset archives, and compare them.",
    "search": "Find the images in a folder that are most similar to given ones.",
    "doctor": "Check what this machine or allocation offers, and list likely problems.",
    "results": "Show, compare and export the results of runs.",
    "submit": "Submit runs and studies to SLURM, and follow them.",
}


JOINING = frozenset({"train", "study", "doctor"})
"""Commands whose processes join as ranks, so that one speaks for all; of others each works for itself."""

HEAD_START = 2.0
"""Seconds that rank 0 has to tell a mistake that each process of a launch finds for itself."""


@click.command(
    cls=lazy_group(__name__, COMMANDS),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="fedreid-mpi")
def group() -> None:
    """Federated person re-identification on clusters, over MPI.

    Each site trains on its own images; only model updates travel. A typical way through:

    \b
      fedreid-mpi prepare --all datasets archives   folders -> HDF5 archives
      mpirun -n 10 fedreid-mpi train paper.toml --run-dir runs/1
      fedreid-mpi results show runs/1               the table of scores
    """  # noqa: D301 (click needs the backspace)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code: 0 done, 2 usage, 3 data, 4 too few clients, 1 anything else.

    Only this user can read what is written, unless the command is told to share it with the group.
    Errors raised on purpose become one line on the error stream. Commands that run on several ranks handle
    their own end, since a rank that merely exits would leave the others waiting.
    """
    speaks = is_first(os.environ) or not JOINING.intersection(arguments[:1])
    try:
        with private():
            group.main(args=list(arguments), prog_name="fedreid-mpi", standalone_mode=False)
            if sys.stdout is not None:
                sys.stdout.flush()  # here a loss can still be reported
    except FedReIDError as error:
        if speaks:
            print_error(str(error))
        else:
            time.sleep(HEAD_START)  # rank 0 finds the same mistake; the first to leave ends all
        return error.exit_code
    except click.ClickException as error:
        if not speaks:
            return 0  # rank 0 finds the same mistake; leaving with a code might end it before it prints that
        print_error(error.format_message())
        return error.exit_code if isinstance(error, click.UsageError) else 2
    except OSError as error:  # not expected where it happened
        print_error(f"{error.filename or 'the system'}: {error.strerror or error}")
        return 1
    except (click.Abort, KeyboardInterrupt):
        print_error("interrupted")
        return 130
    except click.exceptions.Exit as end:
        return end.exit_code
    return 0
