"""Jobs and their commands, without a cluster; `python` this file to renew the golden files."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fedreid_mpi.cli import run
from fedreid_mpi.config import load_experiment
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.slurm import (
    Job,
    Partition,
    Resources,
    count_clients,
    fit,
    job_number,
    moment,
    parse_partitions,
    parse_time,
    refusals,
    rows,
    sbatch_command,
    shell_text,
)
from fedreid_mpi.slurm.cluster import Nodes
from support.small import write_experiment, write_site

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parents[2] / "golden"
JOBS = ROOT / "jobs"
NASTY = (
    "two words",
    "it's",
    'a "quote"',
    "$HOME",
    "`id`",
    "back\\slash",
    "line\nbreak",
    "100%",
    "--nodes=9",
    "",
)

GPU_CLUSTER = """\
debug*|up|30:00|2|8|(null)
gpu|up|1-00:00:00|10|64|gpu:a100:4(S:0-1)
gpu|up|1-00:00:00|2|128|gpu:a100:4,gpu:v100:4,nvme:1
long|up|infinite|100|48+|(null)
old|drain|5-12:30:00|4|24|gpu
"""


def chain():
    place = {"partition": "gpu", "account": "proj42", "extra": ("--mail-type=END",)}
    environment = {"FEDREID_ENV": "/home/me/jobs/env.sh", "FEDREID_LAUNCHER": "srun"}
    run_dir = Path("/scratch/me/it's a run/100%")
    folder = Path("/home/me/jobs")
    train = Job(
        step="train",
        name="FedPav, it's on",
        script=folder / "train.sbatch",
        arguments=("/home/me/paper.toml", str(run_dir), "--set", "run.name='two words'"),
        log=run_dir / "logs" / "train-%j.log",
        resources=Resources(nodes=3, ranks=10, cpus_per_task=4, gpus_per_node=4, time="12:00:00", **place),
        environment=environment,
        after="prepare",
    )
    prepare = Job(
        step="prepare",
        name="FedPav-prepare",
        script=folder / "prepare.sbatch",
        arguments=("--all", "/data/re id", "/scratch/archives"),
        log=run_dir / "logs" / "prepare-%j.log",
        resources=Resources(**place),
        environment=environment,
    )
    return [prepare, train]


def study():
    return [
        Job(
            step="study",
            name="paper",
            script=Path("/home/me/jobs/sweep.sbatch"),
            arguments=("/home/me/suite.toml", "/scratch/study"),
            log=Path("/scratch/study/logs/%A_%a.log"),
            resources=Resources(nodes=1, ranks=10, mem="64G", qos="long", constraint="a100|v100"),
            array="0-17%4",
        )
    ]


TEXTS = {"chain.sh": chain, "study.sh": study}


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_the_golden_one(name):
    assert shell_text(TEXTS[name]()) == (GOLDEN / name).read_text(encoding="utf-8")


def test_text_run_by_a_shell_says_to_sbatch_what_the_command_says(tmp_path):
    calls = tmp_path / "calls"
    calls.mkdir()
    fake = tmp_path / "bin" / "sbatch"
    fake.parent.mkdir()
    lines = (
        "#!/bin/sh",
        f"printf '%s\\0' \"$NASTY\" \"$@\" >'{calls}'/$(ls '{calls}' | wc -l)",
        "echo '7;here'",
    )
    fake.write_text("\n".join(lines), encoding="utf-8")
    fake.chmod(0o755)
    folder = tmp_path / 'it\'s "a" $folder\nof 100%'
    first, second = (
        Job(
            step=step,
            name=f"{step}: {NASTY[6]}",
            script=folder / "train.sbatch",
            arguments=NASTY,
            log=folder / "logs" / "%j.log",
            resources=Resources(constraint="a|b&c", extra=("--comment=x 'y'",)),
            environment={"NASTY": NASTY[6]},
            after=after,
        )
        for step, after in (("first", ""), ("second", "first"))
    )
    path = os.pathsep.join([str(fake.parent), os.environ["PATH"]])
    ended = subprocess.run(
        ["sh", "-c", shell_text([first, second])], env={"PATH": path}, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "first: job 7\nsecond: job 7\n")
    assert (folder / "logs").is_dir()
    for number, command in enumerate((sbatch_command(first), sbatch_command(second, "7"))):
        assert (calls / str(number)).read_text().split("\0")[:-1] == [NASTY[6], *command[1:]]


def test_backslash_in_a_logs_folder_is_refused():
    job = Job("train", "x", Path("/j"), (), Path("/a\\b/%j.log"))
    with pytest.raises(ConfigurationError, match="backslash"):
        sbatch_command(job)


def test_sinfo_is_read():
    assert parse_partitions(GPU_CLUSTER) == {
        "debug": Partition(True, True, 1800, (Nodes(2, 8, 0),)),
        "gpu": Partition(False, True, 86400, (Nodes(10, 64, 4), Nodes(2, 128, 8))),
        "long": Partition(False, True, None, (Nodes(100, 48, 0),)),
        "old": Partition(False, False, 477000, (Nodes(4, 24, 1),)),
    }


def test_sinfo_of_several_clusters_with_a_banner_is_read():
    """Lines of another form are passed over; a partition of two clusters has the nodes of both."""
    text = "*** maintenance on Monday | bring cake ***\nCLUSTER: alpha\n" + GPU_CLUSTER
    text += (
        "odd|up|n/a|2|8|(null)\n\nCLUSTER: beta\ngpu | up | 2-00:00:00 | 2K | 16 | (null)\nold|UP|1:00|1|1|\n"
    )
    partitions = parse_partitions(GPU_CLUSTER)
    gpu, old = partitions["gpu"], partitions["old"]
    assert parse_partitions(text) == partitions | {
        "gpu": Partition(False, True, 172800, (*gpu.nodes, Nodes(2048, 16, 0))),
        "old": Partition(False, True, 477000, (*old.nodes, Nodes(1, 1, 0))),
    }


def test_what_the_queue_prints_is_understood_or_passed_over():
    assert list(rows("CLUSTER: a\n1|2|x|y\n1|2\n", 3)) == [["1", "2", "x|y"]]
    assert job_number("sbatch: lua: welcome\n12;alpha\n") == job_number("12\n") == "12"
    assert job_number("") == job_number("Submitted\n") == ""
    assert moment("CLUSTER: a\n2026-01-02T03:04:05\n") == "2026-01-02T03:04:05"
    assert moment("CLUSTER: a\nUnknown\n") == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400), ("1:30", 90), ("12:00:00", 43200), ("1-0", 86400), ("1-02", 93600), ("1-02:30", 95400),
        ("1-02:30:15", 95415), ("infinite", None), ("UNLIMITED", None),
    ],
)  # fmt: skip
def test_times_of_slurm(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "2h", "1:2:3:4", "-1", "1-", "1.5", "١"])
def test_no_times_of_slurm(text):
    with pytest.raises(ValueError, match="is not a time that SLURM knows"):
        parse_time(text)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"nodes": 3, "ranks": 10, "gpus_per_node": 4, "partition": "gpu", "time": "1-00:00:00"}, []),
        ({"nodes": 1, "ranks": 9, "gpus_per_node": 8, "partition": "gpu"}, []),
        ({"ranks": 8, "time": "30"}, []),
        ({"ranks": 40, "partition": "debug,long", "time": "UNLIMITED"}, []),
        ({"partition": "fast"}, ["--partition fast is not there; there are debug, gpu, long, old"]),
        ({"partition": "old"}, ["--partition old accepts no jobs at present"]),
        ({"time": "31"}, ["--time 31 is over the limit of partition debug, 00:30:00"]),
        (
            {"partition": "gpu", "time": "infinite"},
            ["--time infinite, no limit, is over that of partition gpu, 1-00:00:00"],
        ),
        (
            {"partition": "gpu", "gpus_per_node": 9, "time": "2-0"},
            [
                "--time 2-0 is over the limit of partition gpu, 1-00:00:00",
                "--gpus-per-node 9: nodes of partition gpu have 8",
            ],
        ),
        ({"time": "0"}, ["--time 0, no limit, is over that of partition debug, 00:30:00"]),
        ({"time": "0:00", "partition": "long"}, []),
        ({"gpus_per_node": 1}, ["--gpus-per-node 1: nodes of partition debug have none"]),
        ({"nodes": 3, "partition": "gpu", "gpus_per_node": 8}, ["--nodes 3: partition gpu has 2 such nodes"]),
        (
            {"nodes": 2, "ranks": 10, "cpus_per_task": 2},
            ["--ranks 10 on 2 nodes need 10 CPUs per node, nodes of partition debug have 8"],
        ),
    ],
)
def test_what_a_cluster_refuses(wanted, said):
    assert list(refusals(Resources(**wanted), parse_partitions(GPU_CLUSTER))) == said


def test_partition_must_be_named_where_none_is_the_default():
    partitions = parse_partitions(GPU_CLUSTER.replace("*", ""))
    assert list(refusals(Resources(), partitions)) == [
        "--partition is needed, as no partition is the default; there are debug, gpu, long, old"
    ]


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    return [write_site(folder / f"{name}.h5", 9) for name in "abc"]


@pytest.mark.parametrize(
    ("federation", "clients"),
    [
        ({}, 3),
        ({"mode": "local"}, 3),
        ({"mode": "centralised"}, 1),
        ({"clients": "identity", "identity_clients": 2}, 6),
        ({"clients": "camera"}, 6),
    ],
)
def test_clients_are_counted(sites, tmp_path, federation, clients):
    experiment = load_experiment(write_experiment(tmp_path / "e.toml", sites, federation=federation))
    assert count_clients(experiment) == clients


@pytest.mark.parametrize(
    ("device", "asked", "nodes", "ranks"),
    [
        ("cpu", {}, 1, 4),
        ("cpu", {"ranks": 2}, 1, 2),
        ("cpu", {"nodes": 2}, 2, 4),
        ("auto", {"gpus_per_node": 4}, 1, 4),
        ("cuda", {"gpus_per_node": 2}, 2, 4),
        ("cuda", {"gpus_per_node": 2, "nodes": 1}, 1, 3),
        ("cuda", {"gpus_per_node": 1}, 3, 4),
    ],
)
def test_ranks_and_nodes_follow_from_clients_and_gpus(sites, tmp_path, device, asked, nodes, ranks):
    experiment = load_experiment(write_experiment(tmp_path / "e.toml", sites, compute={"device": device}))
    fitted = fit(experiment, Resources(**asked))
    assert (fitted.nodes, fitted.ranks) == (nodes, ranks)


def submit(capfd, *arguments):
    code = run(["submit", *map(str, arguments)])
    return code, *capfd.readouterr()


def test_dry_run_prints_a_chain_and_leaves_nothing(sites, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no sinfo there
    experiment = write_experiment(tmp_path / "it's.toml", sites)
    words = ("--env-script", JOBS / "env.sh", "--run-dir", tmp_path / "run", "--evaluate", "--dry-run")
    chained = ("--prepare", tmp_path, "--size", "32x16", "--collect", tmp_path / "all.h5")
    code, text, told = submit(capfd, "train", experiment, *words, *chained)
    assert (code, told) == (0, "not checked against a cluster: sinfo is not on the PATH\n")
    words = shlex.split(text.replace("$(", " ( ").replace("\n", " "))
    scripts = [Path(word).name for word in words if word.endswith(".sbatch")]
    assert scripts == ["prepare.sbatch", "train.sbatch", "evaluate.sbatch", "collect.sbatch"]
    assert "--ntasks=4" in words
    assert str(experiment) in words
    assert not (tmp_path / "run").exists()


def test_study_is_an_array_as_large_as_its_largest_run(sites, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    write_experiment(tmp_path / "base.toml", sites)
    (tmp_path / "suite.toml").write_text(
        '[study]\nname = "s"\nbase = "base.toml"\nseeds = [0, 1, 2]\n[methods.a]\n'
        '[methods.b.federation]\nclients = "identity"\nidentity_clients = 3\n'
    )
    words = ("--env-script", JOBS / "env.sh", "--at-once", "2", "--dry-run")
    code, text, _ = submit(capfd, "study", tmp_path / "suite.toml", tmp_path / "s", *words)
    assert code == 0
    assert "--array=0-5%2 \\\n" in text
    assert "--ntasks=10 \\\n" in text


@pytest.mark.parametrize(
    ("settings", "options", "code", "said"),
    [
        ({}, [], 2, "no SLURM here: sinfo is not on the PATH; --dry-run prints the commands"),
        (
            {"compute": {"device": "cuda"}},
            [],
            2,
            'compute.device is "cuda", expected --gpus-per-node as well',
        ),
        ({}, ["--gpus-per-node", "2"], 2, 'compute.device is "cpu", which leaves the 2 GPUs per node unused'),
        ({"data": {"archives": ["no.h5"]}}, [], 3, "/no.h5: no such file"),
        ({"data": {"unseen": ["no.h5"]}}, [], 3, "/no.h5: no such file"),
        (
            {"data": {"archives": ["no.h5"]}, "federation": {"clients": "camera"}},
            ["--prepare", "x"],
            2,
            "--ranks is needed, as the clients cannot be counted: ",
        ),
        ({}, ["--time", "2h"], 2, "'2h' is not a time that SLURM knows"),
        ({}, ["--time", ""], 2, "'' is not a time that SLURM knows: e.g. 90, 12:00:00 or 1-12:00:00"),
        *(
            ({}, [f"--extra={option}"], 2, f"{option}: {said}")
            for option, said in (
                (
                    "--gpus-per-task=1",
                    "each task would see a GPU of its own, the server too; expected --gpus",
                ),
                ("--gpu-bind=single:1", "each task would see a GPU of its own"),
                ("-n4", "expected --ranks of submit itself"),
                ("--gres=gpu:2", "expected --gpus-per-node of submit itself"),
                ("--wrap=x", "submit sets this itself"),
                ("mail-type=END", "expected one word that is an option"),
            )
        ),
        ({}, ["--env-script", "none/env.sh"], 2, "--env-script none/env.sh: no file none/env.sh, expected"),
        (
            {},
            ["--on-rank-loss", "drop", "--launcher", "srun"],
            2,
            "--on-rank-loss drop needs --launcher mpirun",
        ),
        ({"federation": {"mode": "local"}}, ["--evaluate"], 2, "--evaluate scores models/global.safetensors"),
    ],
)
def test_bad_submissions_are_told_in_a_line(
    sites, tmp_path, capfd, monkeypatch, settings, options, code, said
):
    monkeypatch.setenv("PATH", str(tmp_path))
    experiment = write_experiment(tmp_path / "e.toml", sites, **settings)
    place = ("--env-script", JOBS / "env.sh", "--run-dir", tmp_path / "run")
    found, _, told = submit(capfd, "train", experiment, *place, *options)
    assert found == code
    assert told.startswith("fedreid-mpi: error: ")
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for SLURM's programs, which print what a test has written."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def says(program, text):
        path = folder / program
        path.write_text(f"#!/bin/sh\necho \"$@\" >>'{tmp_path}/{program}.asked'\ncat <<'END'\n{text}END\n")
        path.chmod(0o755)

    return says


def test_jobs_are_submitted_and_followed_where_programs_say_more_than_they_are_asked(
    sites, tmp_path, capfd, slurm
):
    slurm("sinfo", "CLUSTER: alpha\n" + GPU_CLUSTER)
    slurm("sbatch", "sbatch: welcome to alpha\n41;alpha\n")
    slurm("squeue", "CLUSTER: alpha\n41|41|RUNNING|1:00|None\n")
    slurm("sacct", "accounts are slow today\n")
    experiment = write_experiment(tmp_path / "e.toml", sites)
    words = ("--env-script", JOBS / "env.sh", "--run-dir", tmp_path / "run", "--time", "10")
    code, _, told = submit(capfd, "train", experiment, *words, "--extra=--clusters=alpha")
    assert (code, told) == (0, "")
    assert "--clusters=alpha" in (tmp_path / "sinfo.asked").read_text()
    assert (tmp_path / "run" / "jobs.txt").read_text() == "41 train\n"
    code, text, _ = submit(capfd, "status", tmp_path / "run")
    assert code == 0
    assert "train: job 41 running, 1:00 so far" in text
    slurm("squeue", "CLUSTER: alpha\n")
    (tmp_path / "run" / "jobs.txt").write_text("41 train\nhalf\n")
    assert "train: job 41 is no longer in the queue" in submit(capfd, "status", tmp_path / "run")[1]


def test_what_cannot_be_understood_is_told_in_a_line(sites, tmp_path, capfd, slurm):
    slurm("sinfo", "CLUSTER: alpha\n")
    slurm("sbatch", "come back on Monday\n")
    experiment = write_experiment(tmp_path / "e.toml", sites)
    words = ("--env-script", JOBS / "env.sh", "--run-dir", tmp_path / "run")
    code, text, told = submit(capfd, "train", experiment, *words, "--dry-run")
    unchecked = (
        "not checked against a cluster: sinfo printed 'CLUSTER: alpha', in which no partition is listed\n"
    )
    assert (code, told) == (0, unchecked)
    assert "sbatch --parsable" in text
    code, _, told = submit(capfd, "train", experiment, *words)
    said = "fedreid-mpi: error: sbatch printed 'come back on Monday', expected the number of a job\n"
    assert (code, told) == (2, unchecked + said)


def test_a_program_that_fails_in_many_words_is_told_in_a_line(sites, tmp_path, capfd, monkeypatch, slurm):
    slurm("sinfo", "")
    (tmp_path / "bin" / "sinfo").write_text(
        "#!/bin/sh\necho 'error: no DNS' >&2\necho 'fatal: no  config' >&2\nexit 1\n"
    )
    experiment = write_experiment(tmp_path / "e.toml", sites)
    words = ("--env-script", JOBS / "env.sh", "--run-dir", tmp_path / "run", "--dry-run")
    code, _, told = submit(capfd, "train", experiment, *words)
    said = "not checked against a cluster: sinfo failed: error: no DNS fatal: no config\n"
    assert (code, told) == (0, said)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin" / "sinfo").write_text("#!/no/such/shell\n")
    assert "sinfo cannot be run: No such file or directory" in submit(capfd, "train", experiment, *words)[2]


def test_status_of_a_folder_without_anything(tmp_path, capfd):
    code, _, told = submit(capfd, "status", tmp_path)
    assert (code, told.count("\n")) == (3, 1)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, jobs in TEXTS.items():
        (GOLDEN / name).write_text(shell_text(jobs()), encoding="utf-8")
    sys.exit()
