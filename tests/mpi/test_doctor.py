"""``fedreid-mpi doctor``: real machines are looked at, hand-made ones judged."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fedreid_mpi.cli import run
from fedreid_mpi.comm import Library, SingleCommunicator
from fedreid_mpi.doctor.facts import JobFacts, RankFacts, Report, StorageFacts
from fedreid_mpi.doctor.judge import Level, judge
from fedreid_mpi.doctor.machine import cgroup_limit, look_around
from fedreid_mpi.doctor.storage import look_at_storage, mount_type
from support.launching import ERROR, Launcher, fedreid, mpich

GIB = 2**30
VERSIONS = {"torch": "2.9", "CUDA": "12.8", "HDF5": "2.0.0"}
RANK = RankFacts(
    rank=0,
    node="n1",
    worker=True,
    cores=(0, 1, 2, 3),
    node_cores=4,
    threads=1,
    device="cpu",
    gpus=(),
    visible_gpus="",
    node_gpus=0,
    memory=64 * GIB,
    shared_memory=8 * GIB,
    import_seconds=3.0,
    packages="ext4",
    versions=VERSIONS,
    missing=(),
)
STORAGE = StorageFacts("runs/1", "nfs4", 500 * GIB, 900 * GIB, renames=True, locks=True, links=True)
OPEN_MPI = Library("Open MPI", "5.0.11", "3.1", "multiple", False, False)
ALONE = Report((RANK,), "", "mpirun (Open MPI) 5.0.11", False, OPEN_MPI, "", None, STORAGE, "")


def ranks(count, **changes):
    """A server and client ranks on one node."""
    return tuple(replace(RANK, rank=rank, worker=rank > 0, **changes) for rank in range(count))


def launched(*ranks, **changes):
    return replace(ALONE, ranks=ranks, launcher="Open MPI", mpirun="", **changes)


def storage(**changes):
    return replace(ALONE, storage=replace(STORAGE, **changes))


def wrong(report):
    return [each for each in judge(report) if each.level is not Level.OK]


PINNED = [replace(rank, cores=(cores,)) for rank, cores in zip(ranks(3), (0, 1, 1), strict=True)]
OWN_GPU = [replace(rank, gpus=("H100",), node_gpus=2, visible_gpus=str(rank.rank % 2)) for rank in ranks(3)]
FINE = {
    "alone": ALONE,
    "a server and a client rank for each core": launched(*ranks(5)),
    "two client ranks on a core each": launched(
        replace(RANK, worker=False), replace(RANK, rank=1, cores=(0,)), replace(RANK, rank=2, cores=(1,))
    ),
    "a GPU for each client rank": launched(*ranks(3, gpus=("H100", "H100"), node_gpus=2)),
    "a GPU a task": launched(*OWN_GPU),
    "a GPU a task, by their UUIDs": launched(*(replace(r, gpu_id=f"GPU-{r.visible_gpus}") for r in OWN_GPU)),
    "two nodes of a job": launched(RANK, replace(RANK, rank=1, node="n2"), job=JobFacts("7", 2, "")),
    "two nodes with four cores each": launched(
        *ranks(5), *(replace(rank, node="n2", rank=rank.rank + 5) for rank in ranks(4))
    ),
    "MPICH alone": replace(ALONE, mpirun="HYDRA build details:", mpi=replace(OPEN_MPI, vendor="MPICH")),
}
HURTS = {
    "another mpirun": (replace(ALONE, mpirun="HYDRA build details:"), "MPI", "mpi4py uses Open MPI 5.0.11"),
    "no MPI": (replace(ALONE, mpi="cannot load MPI library"), "MPI", "(cannot load MPI library)"),
    "root": (replace(ALONE, root=True), "MPI", "refuses to start for root"),
    "an idle node": (
        launched(*ranks(3), job=JobFacts("7", 2, "")),
        "nodes",
        "has 2 nodes, but all ranks are on n1",
    ),
    "old library on a rank": (
        launched(RANK, replace(RANK, rank=1, versions={**VERSIONS, "torch": "2.8"})),
        "software",
        "torch is 2.8 on rank 1, 2.9 on rank 0",
    ),
    "slow disk": (
        replace(ALONE, ranks=ranks(1, import_seconds=94.0, packages="nfs4")),
        "software",
        "94 s to import",
    ),
    "one core for two": (launched(*PINNED), "cores", "n1: 2 client ranks share 1 of 4 cores"),
    "too many ranks": (launched(*ranks(6)), "cores", "n1: 5 client ranks share 4 of 4 cores"),
    "threads not set": (launched(*ranks(3, threads=0)), "threads", "each of its 3 ranks"),
    "too many threads": (launched(*ranks(3, threads=2)), "threads", "n1: 6 threads of 3 ranks on 4 cores"),
    "torch without CUDA": (
        replace(ALONE, ranks=ranks(1, node_gpus=4, versions={**VERSIONS, "CUDA": ""})),
        "GPUs",
        "n1 has 4 GPUs, but torch sees none: it is built without CUDA",
    ),
    "no GPU asked for": (
        replace(ALONE, ranks=ranks(1, node_gpus=4)),
        "GPUs",
        "n1 has 4 GPUs, but torch sees none",
    ),
    "too few GPUs": (
        launched(*ranks(4, gpus=("H100", "H100"), node_gpus=2)),
        "GPUs",
        "n1: rank 1 sees 2 GPUs for 3 client ranks",
    ),
    "one GPU for two, though each sees one": (
        launched(*(replace(rank, gpu_id="GPU-0") for rank in OWN_GPU)),
        "GPUs",
        "n1: ranks 1 and 2 share one GPU, GPU-0",
    ),
    "one GPU shown to all": (
        launched(*ranks(3, gpus=("H100",), node_gpus=1, gpu_id="MIG-7")),
        "GPUs",
        "n1: ranks 1 and 2 share one GPU, MIG-7",
    ),
    "one GPU shown to all by an old torch": (
        launched(*ranks(3, gpus=("H100",), node_gpus=1)),
        "GPUs",
        "n1: rank 1 sees 1 GPU for 2 client ranks",
    ),
    "folders are not flushed": (storage(flushes=False), "run directory", "nfs4 does not flush folders"),
    "little memory": (launched(*ranks(3, memory=4 * GIB)), "memory", "n1: 1.3 GiB of memory per rank"),
    "small /dev/shm": (launched(*ranks(5, shared_memory=64 * 2**20)), "memory", "64 MiB free in /dev/shm"),
    "full disk": (storage(free=GIB), "run directory", "1.0 of 900 GiB are free for runs/1"),
    "no locks": (storage(locks=False), "run directory", "nfs4 does not lock files"),
    "no renames": (storage(renames=False), "run directory", "in one step"),
}
PREVENTS = {
    "mixed MPIs": (replace(ALONE, problem="Open MPI started 4 processes, but"), "MPI", "Open MPI started 4"),
    "no torch": (
        launched(RANK, replace(RANK, rank=1, versions={}, missing=("torch: libcudart.so",))),
        "software",
        "rank 1 cannot import torch: libcudart.so",
    ),
    "read-only": (storage(error="/data: Permission denied"), "run directory", "/data: Permission denied"),
    "local disk": (
        storage(kind="xfs", unseen_by=("n2", "n3")),
        "run directory",
        "(xfs) is not seen by n2, n3",
    ),
}


@pytest.mark.parametrize("name", FINE)
def test_nothing_is_wrong(name):
    findings = judge(FINE[name])
    assert wrong(FINE[name]) == []
    assert len({each.subject for each in findings}) == len(findings)


@pytest.mark.parametrize("name", [*HURTS, *PREVENTS])
def test_what_is_wrong_is_found_alone(name):
    report, subject, text = (HURTS | PREVENTS)[name]
    (found,) = wrong(report)
    assert (found.subject, found.level) == (subject, Level.ERROR if name in PREVENTS else Level.WARNING)
    assert text in found.text
    assert found.remedy or name == "mixed MPIs"


MOUNTS = """\
27 1 254:0 / / rw - ext4 /dev/vda rw
30 27 0:30 / /home rw shared:1 - nfs4 server:/home rw
31 30 0:31 / /home/the\\040lab rw - lustre mds:/lab rw
32 27 0:32 / /scratch rw - xfs /dev/vdb rw
33 32 0:33 / /scratch rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/homes/x", "ext4"),
        ("/home/x", "nfs4"),
        ("/home/the lab/x", "lustre"),
        ("/scratch/x", "tmpfs"),
    ],
)
def test_the_file_system_of_a_path(path, kind):
    assert mount_type(Path(path), MOUNTS) == kind


def test_the_memory_limit_of_a_control_group(tmp_path):
    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")

    assert cgroup_limit("0::/gone\n", tmp_path) is None
    write("slurm/job_7/memory.max", "8000")
    write("slurm/job_7/step_0/memory.max", "max")
    assert cgroup_limit("0::/slurm/job_7/step_0\n", tmp_path) == 8000
    write("slurm/memory.max", "5000")
    assert cgroup_limit("0::/slurm/job_7/step_0\n", tmp_path) == 5000
    write("memory/box/memory.limit_in_bytes", "700")
    assert cgroup_limit("9:cpu,memory:/box/inner\n8:pids:/box\n0::/\n", tmp_path) == 700


def test_the_end_of_a_job_is_taken_from_its_environment():
    job = look_around(
        {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_END_TIME": "1700000000"}
    ).job
    assert (job.id, job.nodes) == ("7", 3)
    assert job.end.startswith("2023-11-1")


def test_the_run_directory_is_tried_out_and_left_as_it_was(tmp_path):
    facts = look_at_storage(SingleCommunicator(), tmp_path / "runs" / "1", "n1")
    assert (facts.error, facts.renames, facts.locks, facts.unseen_by) == ("", True, True, ())
    assert 0 < facts.free <= facts.total
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_below_a_file_ends_with_code_2(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert exit_code("doctor", "--run-dir", str(tmp_path / "file" / "run"), "--json") == 2
    (found,) = [each for each in json.loads(capsys.readouterr().out)["findings"] if each["level"] == "error"]
    assert found["text"] == f"nothing can be written: {tmp_path / 'file'}: Not a directory"


def test_tables_for_people(capsys):
    assert exit_code("doctor") == 0
    text = capsys.readouterr().out
    for part in ("Facts", "Ranks", "Findings", "HDF5_USE_FILE_LOCKING", "run directory"):
        assert part in text


def exit_code(*arguments):
    with pytest.raises(SystemExit) as end:
        run(arguments)
    return end.value.code


def alone(folder, *modules, **variables):
    path = os.pathsep.join([*map(str, modules), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [Path(sys.executable).parent / "fedreid-mpi", "doctor", "--json"],
        cwd=folder,
        env={"PYTHONPATH": path, "PATH": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.stderr == ""
    return ended.returncode, json.loads(ended.stdout)


def test_alone_without_any_mpirun(tmp_path):
    code, facts = alone(tmp_path, HDF5_USE_FILE_LOCKING="FALSE")
    assert code == 0
    assert (facts["launcher"], facts["mpirun"], facts["hdf5_locking"]) == ("", "", "FALSE")
    assert len(facts["ranks"]) == 1


def test_a_broken_installation_of_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open')")
    code, facts = alone(tmp_path, tmp_path)
    assert code == 2
    (found,) = [each for each in facts["findings"] if each["level"] == "error"]
    assert found["text"] == "rank 0 cannot import torch: libcudart.so.13: cannot open"


def test_under_mpirun(tmp_path):
    ended = fedreid(3, "doctor", "--json", "--run-dir", tmp_path / "run", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    facts = json.loads(ended.stdout)
    assert [(rank["rank"], rank["worker"]) for rank in facts["ranks"]] == [(0, False), (1, True), (2, True)]
    assert {rank["versions"]["torch"] for rank in facts["ranks"]} == {facts["ranks"][0]["versions"]["torch"]}
    assert facts["mpi"]["threads"] in {"single", "funneled", "serialized", "multiple"}
    assert facts["storage"]["unseen_by"] == []
    assert list(tmp_path.iterdir()) == []


def test_mixed_mpis_are_a_finding(tmp_path):
    mixed = Launcher(mpich().command, {})
    ended = fedreid(2, "doctor", "--json", cwd=tmp_path, launcher=mixed)
    assert ended.code == 2
    facts = json.loads(ended.stdout[ended.stdout.index("{") : ended.stdout.rindex("\n}") + 2])
    assert "2 processes" in facts["problem"]
    assert facts["findings"][0]["level"] == "error"
    assert ERROR not in ended.stderr


def test_in_a_slurm_job_on_two_nodes(slurm, tmp_path):
    script = 'mpirun -n 3 fedreid-mpi doctor --json --run-dir "$PWD/run" > facts.json'
    job = slurm.sbatch(script, "--nodes=2", "--ntasks-per-node=2", "--gres=gpu:1", "--time=30", cwd=tmp_path)
    shown = slurm.wait(job, timeout=300)
    assert shown["ExitCode"] == "0:0", slurm.output(job)
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert [rank["node"] for rank in facts["ranks"]] == ["n1", "n1", "n2"]
    assert {rank["visible_gpus"] for rank in facts["ranks"]} == {"0"}
    assert (facts["job"]["id"], facts["job"]["nodes"]) == (job, 2)
    begin, end = (datetime.fromisoformat(text) for text in (shown["StartTime"], facts["job"]["end"]))
    assert end - begin == timedelta(minutes=30)
    levels = {found["subject"]: found["level"] for found in facts["findings"]}
    assert levels["nodes"] == levels["MPI"] == levels["run directory"] == "ok"
