import os
import shutil
import subprocess
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[1] / "jobs"
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
