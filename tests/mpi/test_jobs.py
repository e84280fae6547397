import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.launching import ENVIRONMENT, STAND_IN, surviving

JOBS = Path(__file__).parents[2] / "jobs"
SLURM = {
    "SLURM_JOB_ID": "1",
    "SLURM_NTASKS": "2",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_JOB_END_TIME": "4000000000",
    "SLURMD_NODENAME": "n1",
}
SCRIPTS = sorted([*JOBS.glob("*.sbatch"), *JOBS.glob("*.sh")])


def test_shellcheck_is_content():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(["shellcheck", *SCRIPTS], cwd=JOBS.parent, capture_output=True, text=True)
    assert checked.stdout + checked.stderr == ""


@pytest.mark.parametrize("script", sorted(JOBS.glob("*.sbatch")), ids=lambda path: path.name)
def test_script_outside_of_the_checkout_says_so_and_ends(script, tmp_path):
    environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "1"}
    ended = subprocess.run(
        ["bash", script, "a", "b"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "jobs/job.sh: No such file or directory" in ended.stderr


@pytest.mark.parametrize(
    ("said", "end"),
    [
        ("CLUSTER: alpha\n2026-01-02T03:04:05\n", "1767323045"),
        ("2026-01-02T03:04:05\n", "1767323045"),
        ("CLUSTER: alpha\nUnknown\n", "none"),
        ("2026-maintenance on Monday\n", "none"),
    ],
)
def test_the_end_of_a_job_is_found_in_what_the_queue_prints(said, end, tmp_path):
    (tmp_path / "squeue").write_text(f"#!/bin/sh\ncat <<'END'\n{said}END\n")
    (tmp_path / "squeue").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "1", "TZ": "UTC"}
    ended = subprocess.run(
        ["bash", "-c", f"source '{JOBS}/job.sh' && echo ${{SLURM_JOB_END_TIME:-none}}"],
        cwd=JOBS.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.stdout, ended.stderr) == (f"{end}\n", "")


def test_readme_names_every_script():
    readme = (JOBS / "README.md").read_text(encoding="utf-8")
    assert [script.name for script in SCRIPTS if f"`{script.name}`" not in readme] == []


@pytest.fixture
def site(tmp_path):
    """A folder with the job scripts, where `fedreid-mpi` is the stand-in."""
    shutil.copytree(JOBS, tmp_path / "jobs")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "fedreid-mpi").symlink_to(STAND_IN)
    launcher = Path(surviving().command).parent
    with (tmp_path / "jobs" / "env.sh").open("a", encoding="utf-8") as file:
        file.write(f"\nexport PATH='{tmp_path}/bin:{launcher}':$PATH\n")
    return tmp_path


def test_a_job_ends_with_0_only_if_its_run_says_that_it_is_done(site):
    """By mpirun --with-ft, which takes the death of all ranks for survivable; SLURM is not asked."""

    def play(**variables):
        return subprocess.run(
            ["bash", "jobs/train_ft.sbatch", "x.toml", "run"],
            cwd=site,
            env=os.environ | ENVIRONMENT | SLURM | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )

    ended = play(KILLED="1")
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout.endswith("job 1: the ranks are gone, and none said that the run is done\n")
    assert play().returncode == 0
    assert play(KILLED="1").returncode == 1  # what an earlier job said of its run does not count


def test_a_launcher_that_waits_on_after_the_end_of_its_run_is_ended(site):
    launcher = site / "bin" / "mpirun"
    status = """'{\n "state": "%s",\n "reason": "asked to"\n}\n'"""
    launcher.write_text(
        f'#!/bin/bash\nprintf {status} "$STATE" >run/status.json\nexec sleep 15 >/dev/null 2>&1\n',
        encoding="utf-8",
    )
    launcher.chmod(0o755)

    def play(state, linger):
        return subprocess.run(
            ["bash", "jobs/train.sbatch", "x.toml", "run"],
            cwd=site,
            env=os.environ | ENVIRONMENT | SLURM | {"STATE": state, "FEDREID_LINGER": linger},
            capture_output=True,
            text=True,
            timeout=60,
        )

    ended = play("done", "1")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("the run has ended, but its launcher is still waiting: ending it\n")
    assert play("interrupted", "1").returncode == 1
    ended = play("running", "1")  # waited for; what it says of itself then counts
    assert ended.returncode == 1
    assert ended.stdout.endswith("none said that the run is done\n")
