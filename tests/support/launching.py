"""Real launches for the tests: a program on several ranks, with a time limit, on however few cores."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PROGRAMS = TESTS / "support" / "on_ranks"
STAND_IN = TESTS / "support" / "stand_in.sh"
PYTHONPATH = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
ERROR = "fedreid-mpi: error:"

ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    # Ranks outnumber cores; a library that started a thread a core would only slow the others down.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class Launcher:
    """An ``mpirun`` and what its processes need in their environment."""

    command: str
    environment: Mapping[str, str]
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """What a launch left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def errors(self) -> list[str]:
        """The lines of both streams that report a failed run; a banner may have left a space before them."""
        lines = (self.stdout + "\n" + self.stderr).splitlines()
        return [line.strip() for line in lines if line.strip().startswith(ERROR)]


def mpirun() -> Launcher:
    """The launcher of this environment's MPI; skips the test where there is none."""
    beside = Path(sys.executable).parent / "mpirun"
    command = str(beside) if beside.exists() else shutil.which("mpirun")
    if command is None:
        pytest.skip("no mpirun in this environment or on the PATH")
    return Launcher(command, {})


def surviving() -> Launcher:
    """The same, switched to survive lost ranks; skips the test where the library cannot."""
    launcher = mpirun()
    said = subprocess.run([launcher.command, "--version"], capture_output=True, text=True, check=False).stdout
    if "Open MPI" not in said or int(said.split("Open MPI) ")[-1].split(".")[0]) < 5:
        pytest.skip("this mpirun is not Open MPI 5 or newer")
    return Launcher(launcher.command, launcher.environment, ("--with-ft", "ulfm"))


def mpich() -> Launcher:
    """MPICH's launcher, where the tests were told of one; the same mpi4py then loads MPICH's library."""
    prefix = os.environ.get("FEDREID_TEST_MPICH")
    if not prefix:
        pytest.skip("FEDREID_TEST_MPICH does not name a prefix that holds MPICH")
    root = Path(prefix).resolve()
    return Launcher(str(root / "bin" / "mpiexec"), {"MPI4PY_LIBMPI": str(root / "lib" / "libmpi.so.12")})


def launch(
    ranks: int,
    *command: str | Path,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    timeout: float = 180,
    launcher: Launcher | None = None,
) -> Ended:
    """Run a command on several ranks; fail the test if it has not ended after ``timeout`` seconds."""
    launcher = launcher or mpirun()
    command = (launcher.command, *launcher.options, "-n", str(ranks), *command)
    with _running(command, cwd, {**launcher.environment, **(environment or {})}) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill_session(process.pid)
            stdout, stderr = process.communicate()
            pytest.fail(f"still running after {timeout} s: {process.args}\n{stdout}\n{stderr}")
    return Ended(process.returncode, stdout, stderr)


@contextlib.contextmanager
def started(
    ranks: int, *arguments: str | Path, cwd: Path, launcher: Launcher | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start the command line on some ranks, or (0) without a launcher; all are gone when the block ends."""
    command = (Path(sys.executable).parent / "fedreid-mpi", *arguments)
    if ranks:
        launcher = launcher or mpirun()
        command = (launcher.command, *launcher.options, "-n", str(ranks), *command)
    with _running(command, cwd, {}) as process:
        yield process


@contextlib.contextmanager
def _running(
    command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    # Short, as the launchers put Unix sockets there, and gone afterwards even if they were killed.
    with tempfile.TemporaryDirectory(prefix="mpi") as scratch:
        full = {**os.environ, **ENVIRONMENT, **environment, "TMPDIR": scratch, "PYTHONPATH": PYTHONPATH}
        process = subprocess.Popen(
            [*map(str, command)],
            cwd=cwd,
            env=full,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _kill_session(process.pid)
            process.communicate()


def launch_program(ranks: int, name: str, *arguments: str | Path, **options) -> Ended:
    """Run one of the tests' own programs; an error that it does not handle ends all ranks."""
    return launch(ranks, sys.executable, "-m", "mpi4py", PROGRAMS / name, *arguments, **options)


def fedreid(ranks: int, *arguments: str | Path, **options) -> Ended:
    """Run the command line as its user does."""
    return launch(ranks, Path(sys.executable).parent / "fedreid-mpi", *arguments, **options)


def ranks_of(process: subprocess.Popen[str]) -> dict[int, int]:
    """Return the process of each rank of a launch by Open MPI."""
    ranks = {}
    for pid in _session(process.pid):
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            found = [value for value in variables if value.startswith(b"OMPI_COMM_WORLD_RANK=")]
            if found:
                ranks[int(found[0].partition(b"=")[2])] = pid
    return ranks


def _session(leader: int) -> Iterator[int]:
    """Find the processes of a launch: ranks have process groups of their own, but share its session."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(int(entry.name)) == leader:
                    yield int(entry.name)


def _kill_session(leader: int) -> None:
    for pid in _session(leader):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
