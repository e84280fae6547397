"""What the tests of jobs rely on: that the private SLURM is a real one."""

import os
from pathlib import Path

import pytest

from support.slurm_cluster import running_cluster

pytestmark = pytest.mark.slurm

WORLD = (
    "python -c 'import os; from mpi4py import MPI; world = MPI.COMM_WORLD\n"
    'print("rank", world.rank, "of", world.size, os.environ["SLURMD_NODENAME"], flush=True)\''
)


def test_a_batch_job_gets_the_gpus_that_it_asks_for(slurm, tmp_path):
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    job = slurm.sbatch('echo "$CUDA_VISIBLE_DEVICES in $PWD"', "--gres=gpu:2", cwd=folder)
    assert slurm.wait(job)["JobState"] == "COMPLETED"
    assert slurm.output(job) == f"0,1 in {folder}\n"


def test_a_failed_job_shows_its_exit_code(slurm, tmp_path):
    shown = slurm.wait(slurm.sbatch("exit 3", cwd=tmp_path))
    assert (shown["JobState"], shown["ExitCode"]) == ("FAILED", "3:0")


def test_srun_starts_ranks_of_one_world_that_see_all_gpus_of_the_job(slurm, tmp_path):
    script = f"srun --mpi=pmix {WORLD}\nsrun printenv CUDA_VISIBLE_DEVICES"
    job = slurm.sbatch(script, "--nodes=1", "--ntasks=2", "--gres=gpu:3", cwd=tmp_path)
    shown = slurm.wait(job)
    assert shown["JobState"] == "COMPLETED", slurm.output(job)
    node = shown["NodeList"]
    lines = sorted(slurm.output(job).splitlines())
    assert lines == ["0,1,2", "0,1,2", f"rank 0 of 2 {node}", f"rank 1 of 2 {node}"]


def test_mpirun_spreads_ranks_over_two_nodes(slurm, tmp_path):
    job = slurm.sbatch(f"mpirun -n 4 {WORLD}", "--nodes=2", "--ntasks-per-node=2", cwd=tmp_path)
    assert slurm.wait(job)["JobState"] == "COMPLETED", slurm.output(job)
    expected = [f"rank {rank} of 4 n{1 + rank // 2}" for rank in range(4)]
    assert sorted(slurm.output(job).splitlines()) == expected


def test_a_signal_reaches_the_batch_shell(slurm, tmp_path):
    script = "trap 'echo heard; exit 0' USR2\necho ready\nsleep 60 &\nwait"
    job = slurm.sbatch(script, cwd=tmp_path)
    slurm.wait_for_output(job, "ready")
    slurm.cancel(job, "--signal=USR2", "--batch")
    assert slurm.wait(job)["JobState"] == "COMPLETED"
    assert slurm.output(job) == "ready\nheard\n"


def test_a_requeued_job_starts_again_when_it_is_released(slurm, tmp_path):
    script = (
        'echo "start ${SLURM_RESTART_COUNT:-0}"\n'
        '[ -n "$SLURM_RESTART_COUNT" ] || { scontrol requeue "$SLURM_JOB_ID"; sleep 60; }'
    )
    job = slurm.sbatch(script, "--requeue", "--open-mode=append", cwd=tmp_path)
    slurm.release(job)
    assert slurm.wait(job)["JobState"] == "COMPLETED"
    starts = [line for line in slurm.output(job).splitlines() if line.startswith("start")]
    assert starts == ["start 0", "start 1"]


def test_an_urgent_job_preempts_one_that_is_requeued(slurm, tmp_path):
    script = "trap 'echo preempted' TERM\necho started\nsleep 60 &\nwait"
    everything = ("--nodes=2", "--exclusive")
    job = slurm.sbatch(script, *everything, "--requeue", "--open-mode=append", cwd=tmp_path)
    slurm.wait_for_output(job, "started")
    urgent = slurm.sbatch("echo urgent", *everything, "--partition=urgent", cwd=tmp_path)
    assert slurm.wait(urgent)["JobState"] == "COMPLETED"
    assert slurm.output(urgent) == "urgent\n"
    slurm.release(job)
    slurm.wait(job, "RUNNING")
    assert "preempted" in slurm.output(job)
    slurm.cancel(job)
    assert slurm.wait(job)["JobState"] == "CANCELLED"


def test_nothing_is_left_of_a_cluster_that_ends_while_a_job_runs(slurm, tmp_path):
    """``slurm`` is asked for so that this test is skipped where there is none."""
    with running_cluster() as cluster:
        job = cluster.sbatch("trap '' TERM\necho started\nsleep 600", cwd=tmp_path)
        cluster.wait_for_output(job, "started")
    assert not cluster.folder.exists()
    assert _mentioning(str(cluster.folder)) == []
    assert slurm.command("sinfo", "--noheader", "--format=%D").split() == ["2"]


def _mentioning(text: str) -> list[str]:
    """Command lines of other processes that have a text in their command line or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                content = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue  # it has ended
            if text.encode() in content:
                found.append((entry / "comm").read_text())
    return found
