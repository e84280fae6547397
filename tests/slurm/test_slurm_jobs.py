"""The job scripts and `submit` on a real SLURM, with a stand-in for the program; at the end with itself."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fedreid_mpi.cli import run as fedreid
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.results import read_run
from fedreid_mpi.run.loop import run_federation
from fedreid_mpi.storage.run_directory import read_status
from support.launching import STAND_IN
from support.same_runs import assert_same_run
from support.small import Silent, write_experiment

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slurm

STUDY = """\
[study]
name = "two"
base = "small.toml"
seeds = [0]
[methods.first]
[methods.second]
"""


class Site:
    """A copy of ``jobs/`` in a folder with a difficult name, adapted to a stand-in for the program."""

    def __init__(self, folder, cluster, archives, program):
        self.cluster = cluster
        self.folder = folder / 'it\'s a "site"\n100%'
        shutil.copytree(ROOT / "jobs", self.folder / "jobs")
        programs = folder / "bin"
        programs.mkdir()
        (programs / "fedreid-mpi").symlink_to(program)
        with (self.folder / "jobs" / "env.sh").open("a", encoding="utf-8") as file:
            file.write(f"\nexport PATH='{programs}':$PATH FEDREID_LINGER=15\n")
        self.archives = archives
        write_experiment(self.folder / "small.toml", archives)
        (self.folder / "two.toml").write_text(STUDY, encoding="utf-8")

    def submit(self, *words, **environment):
        """Run `submit`, and return its exit code and both its streams."""
        ended = subprocess.run(
            [sys.executable, "-m", "fedreid_mpi", "submit", *words],
            cwd=self.folder,
            env={**self.cluster.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return ended.returncode, ended.stdout, ended.stderr

    def submitted(self, *words, **environment):
        """Run `submit`, which has to succeed, and return the number of each step's job."""
        code, said, told = self.submit(*words, "--time", "30", **environment)
        assert (code, told) == (0, ""), told
        return dict(re.findall(r"^(\w+): job (\d+)", said, re.MULTILINE))

    def logs(self, run):
        return {path.name: path.read_text() for path in sorted((self.folder / run / "logs").iterdir())}


def wait_for(path, text="", timeout=120):
    """Wait until there is a file, with a text in it."""
    end = time.monotonic() + timeout
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < end, f"no {path} with {text!r} after {timeout} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def site(tmp_path_factory, slurm, archives):
    return Site(tmp_path_factory.mktemp("site"), slurm, archives, STAND_IN)


@pytest.fixture(scope="module")
def jobs(site):
    """All jobs that need no attention, at once."""
    return {
        "placed": site.submitted(
            "train", "small.toml", "--run-dir", "placed",
            "--nodes", "2", "--ranks", "5", "--gpus-per-node", "2",
            "--set", "compute.device='auto'", "--set", "run.name=\"it's new\"",
        ),
        "study": site.submitted("study", "two.toml", "study", "--ranks", "2", "--collect", "all.h5"),
        "fails": site.submitted(
            "train", "small.toml", "--run-dir", "fails",
            "--ranks", "2", "--launcher", "srun", "--evaluate", CODE="3",
        ),
    }  # fmt: skip


def test_ranks_are_dealt_out_to_nodes_and_the_server_is_on_the_first(site, jobs):
    number = jobs["placed"]["train"]
    assert site.cluster.wait(number)["JobState"] == "COMPLETED"
    logs = site.logs("placed")
    assert list(logs) == [*(f"{number}.rank{rank}.log" for rank in range(1, 5)), f"train-{number}.log"]
    said = re.findall(r"rank (\d) on (n\d), GPUs (\S+), until \d{10}\n", "".join(logs.values()))
    assert said == [
        ("1", "n2", "0,1"), ("2", "n1", "0,1"), ("3", "n2", "0,1"), ("4", "n1", "0,1"), ("0", "n1", "0,1"),
    ]  # fmt: skip


def test_arguments_arrive_as_they_were_given(site, jobs):
    site.cluster.wait(jobs["placed"]["train"])
    assert (site.folder / "placed" / "arguments").read_text().split("\0")[:-1] == [
        "train", f"{site.folder}/small.toml", "--run-dir", f"{site.folder}/placed", "--resume",
        "--set", "compute.device='auto'", "--set", "run.name=\"it's new\"",
    ]  # fmt: skip


def test_study_is_an_array_and_what_follows_waits_for_all_of_it(site, jobs):
    assert site.cluster.wait(jobs["study"]["collect"])["JobState"] == "COMPLETED"
    runs = sorted(path.parent.name for path in (site.folder / "study").glob("*/status.json"))
    assert runs == ["first-seed0", "second-seed0"]
    assert "rank 0 on n" in site.logs("study")[f"{jobs['study']['study']}_1.log"]


def test_failed_job_leaves_its_exit_code_and_nothing_follows(site, jobs):
    assert site.cluster.wait(jobs["fails"]["train"])["ExitCode"] == "3:0"
    assert site.cluster.wait(jobs["fails"]["evaluate"])["JobState"] == "CANCELLED"
    number = jobs["fails"]["train"]
    log = site.logs("fails")[f"train-{number}.log"]
    assert f"job {number}: the ranks ended with exit code 3\n" in log
    assert re.search(r"rank 1 on n[12]", log)  # the end of the other rank's log
    code, said, _ = site.submit("status", "fails")
    assert code == 0
    assert f"train: job {number} " in said


def test_warned_job_stops_its_run_and_is_requeued_up_to_a_cap(site):
    words = ("train", "small.toml", "--run-dir", "warned", "--ranks", "2", "--max-requeues", "1")
    number = site.submitted(*words, STEPS="600", DELAY="1")["train"]
    for start in (0, 1):
        # The first time while the ranks are still starting.
        wait_for(site.folder / "warned" / ("begun.1" if start else "arguments"))
        site.cluster.cancel(number, "--signal=USR2", "--batch")
        if start == 0:
            site.cluster.release(number)
    assert site.cluster.wait(number)["ExitCode"] == "1:0"
    said = re.findall(r" job \d+: (.*)", site.logs("warned")[f"train-{number}.log"])
    assert said == [
        "start 1, 2 ranks on 1 node",
        "signal USR2: the run is asked to stop after its round",
        'interrupted: a \\"word\\"',
        "requeued",
        "start 2, 2 ranks on 1 node",
        "signal USR2: the run is asked to stop after its round",
        'interrupted: a \\"word\\"',
        "not requeued: this was restart 1 of at most 1; submit it again to continue",
    ]


def test_cancelled_job_and_run_stopped_by_hand_do_not_come_back(site):
    words = ("--ranks", "1")
    cancelled = site.submitted("train", "small.toml", "--run-dir", "cancelled", *words, STEPS="600")["train"]
    stopped = site.submitted("train", "small.toml", "--run-dir", "stopped", *words, STEPS="600")["train"]
    for run in ("cancelled", "stopped"):
        wait_for(site.folder / run / "begun.0")
    site.cluster.cancel(cancelled)
    (site.folder / "stopped" / "STOP").touch()
    assert site.cluster.wait(stopped)["JobState"] == "FAILED"
    assert site.cluster.wait(cancelled)["JobState"] == "CANCELLED"
    for number in (cancelled, stopped):
        assert site.cluster.show(number)["Restarts"] == "0"


def test_impossible_job_is_refused_before_it_is_submitted(site):
    words = ("train", "small.toml", "--run-dir", "never", "--set", "compute.device='auto'")
    code, _, told = site.submit(*words, "--gpus-per-node", "9", "--time", "2-0")
    assert (code, told) == (
        2,
        "fedreid-mpi: error: --time 2-0 is over the limit of partition work, 01:00:00; "
        "--gpus-per-node 9: nodes of partition work have 4\n",
    )
    assert not (site.folder / "never").exists()


@pytest.fixture
def real(tmp_path, slurm, archives):
    return Site(tmp_path, slurm, archives[:3], Path(sys.executable).parent / "fedreid-mpi")


def rounds_of(real, rounds):
    """Let the experiment have so many rounds, and return a run of it that nothing happened to."""
    path = write_experiment(real.folder / "small.toml", real.archives, run={"rounds": rounds})
    reference = real.folder / "reference"
    run_federation(SingleCommunicator(), load_experiment(path), reference, Silent())
    return reference


def freeze_server(run_dir, round, timeout=120):
    """Stop a run's server once a round is on disk, so that what is done to its job meets it there."""
    end = time.monotonic() + timeout
    while not (run_dir / "status.json").exists() or read_status(run_dir).round < round:
        assert time.monotonic() < end, f"{run_dir} has not come to round {round}"
        time.sleep(0.05)
    server = json.loads((run_dir / "lock").read_text())["pid"]
    os.kill(server, signal.SIGSTOP)
    return server


def rank_of_job(number, rank):
    """Find a rank's process by its environment."""
    wanted = {f"SLURM_JOB_ID={number}".encode(), f"OMPI_COMM_WORLD_RANK={rank}".encode()}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                    return int(entry.name)
    raise AssertionError(f"no rank {rank} of job {number}")


@pytest.mark.timeout(600)
def test_a_run_out_of_time_and_preempted_has_the_bits_of_one_left_alone(real):
    """Its time limit is moved to the present; SLURM looks at limits every half minute."""
    reference, run_dir, slurm = rounds_of(real, 9), real.folder / "run", real.cluster
    words = ("train", "small.toml", "--run-dir", "run", "--nodes", "2", "--ranks", "4")
    number = real.submitted(*words)["train"]

    server = freeze_server(run_dir, 1)
    slurm.command("scontrol", "update", f"JobId={number}", "EndTime=now+240")
    wait_for(run_dir / "logs" / f"train-{number}.log", "signal USR2: the run is asked to stop")
    os.kill(server, signal.SIGCONT)
    slurm.release(number)
    slurm.command("scontrol", "update", f"JobId={number}", "TimeLimit=30")

    server = freeze_server(run_dir, 1 + read_status(run_dir).round)
    urgent = slurm.sbatch("true", "--nodes=2", "--exclusive", "--partition=urgent", cwd=real.folder)
    assert slurm.wait(urgent)["JobState"] == "COMPLETED"
    slurm.release(number)

    shown = slurm.wait(number)
    assert (shown["JobState"], shown["Restarts"]) == ("COMPLETED", "2"), real.logs("run")
    assert_same_run(run_dir, reference)
    assert read_run(run_dir).header.attempt == 3
    said = re.findall(r" job \d+: (.*)", real.logs("run")[f"train-{number}.log"])
    assert said[:4] == [
        "start 1, 4 ranks on 2 nodes",
        "signal USR2: the run is asked to stop after its round",
        "interrupted: the file STOP",
        "requeued",
    ]


@pytest.mark.timeout(600)
def test_a_run_that_loses_a_rank_goes_on_and_is_evaluated(real, tmp_path):
    reference, run_dir = rounds_of(real, 5), real.folder / "run"
    with (real.folder / "jobs" / "env.sh").open("a", encoding="utf-8") as file:
        file.write(f"export SLURM_TMPDIR='{tmp_path}/node disk'\n")
    numbers = real.submitted(
        "train", "small.toml", "--run-dir", "run", "--nodes", "2", "--ranks", "4",
        "--set", "data.stage=$SLURM_TMPDIR", "--on-rank-loss", "replace", "--evaluate",
    )  # fmt: skip
    server = freeze_server(run_dir, 1)
    os.kill(rank_of_job(numbers["train"], 2), signal.SIGKILL)
    os.kill(server, signal.SIGCONT)
    assert real.cluster.wait(numbers["evaluate"], timeout=240)["JobState"] == "COMPLETED", real.logs("run")
    assert_same_run(run_dir, reference)
    assert "rank 2 of 4 on " in " ".join(event.text for event in read_run(run_dir).events)
    assert len(list((tmp_path / "node disk").glob("*/*.h5"))) == 3
    assert "harbour" in real.logs("run")[f"evaluate-{numbers['evaluate']}.log"]
    code, said, told = real.submit("status", "run")
    assert (code, told) == (0, "")
    assert re.search(r"run\W+done\W+5 of 5", said)


@pytest.mark.timeout(600)
def test_a_study_of_real_runs_is_started_by_srun_and_collected(real, capsys):
    numbers = real.submitted(
        "study", "two.toml", "study", "--ranks", "2", "--launcher", "srun", "--collect", "all.h5"
    )
    assert real.cluster.wait(numbers["collect"], timeout=240)["JobState"] == "COMPLETED", real.logs("study")
    assert fedreid(["results", "list", str(real.folder / "all.h5")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"first.*done", said)
    assert re.search(r"second.*done", said)
