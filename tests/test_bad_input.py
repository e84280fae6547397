"""Bad input ends with one line that names what is wrong, the right exit code, and nothing half-written."""

import os
import pickle
import subprocess
import sys

import h5py
import pytest
import torch
from launching import ERROR, fedreid
from safetensors.torch import save_file
from small import write_experiment, write_site

from fedreid_mpi import config
from fedreid_mpi.cli import run
from fedreid_mpi.model import build_network
from fedreid_mpi.results import read_run

CONFIGURATION, DATA, TOO_FEW_CLIENTS = 2, 3, 4


@pytest.fixture
def site(tmp_path):
    return write_site(tmp_path / "site.h5", images=10)


@pytest.fixture
def fails(tmp_path, capsys):
    """Call the command line; check its exit code and what it left behind, and return its only line."""

    def call(code, *arguments):
        try:
            found = run([str(argument) for argument in arguments])
        except SystemExit as end:
            found = end.code
        printed = capsys.readouterr()
        assert found == code, printed.err
        lines = [line for line in printed.err.splitlines() if line.startswith(ERROR)]
        assert len(lines) == 1
        assert "Traceback" not in printed.err + printed.out
        assert "done" not in printed.out
        assert list(tmp_path.rglob("*.tmp")) == []
        assert list((tmp_path / "run").glob("results_*.h5")) == []
        assert list((tmp_path / "run").glob("models/*")) == []
        return lines[0].removeprefix(ERROR).strip()

    return call


@pytest.fixture
def train_fails(fails, tmp_path, site):
    def call(code, archives=(site,), arguments=(), **sections):
        path = write_experiment(tmp_path / "bad.toml", list(archives), **sections)
        return fails(code, "train", path, "--run-dir", tmp_path / "run", *arguments)

    return call


def test_an_unknown_key_and_its_nearest_name(train_fails, tmp_path):
    line = train_fails(CONFIGURATION, optimizer={"learning_rate": 0.1, "momentun": 0.5})
    assert line.startswith(f"{tmp_path / 'bad.toml'}: ")
    assert "unknown key optimizer.momentun (did you mean optimizer.momentum?)" in line
    assert "unknown key optimizer.learning_rate" in line


def test_an_unknown_section(train_fails):
    line = train_fails(CONFIGURATION, agregation={"bn": "local"})
    assert "unknown key agregation (did you mean aggregation?)" in line


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("run", "rounds", "many", "run.rounds is 'many', expected a valid integer"),
        ("run", "rounds", 0, "run.rounds is 0, expected greater than or equal to 1"),
        ("model", "backbone", "resnet51", "model.backbone is 'resnet51', expected 'resnet50', "),
        ("model", "dropout", 1.0, "model.dropout is 1.0, expected less than 1"),
        ("augmentation", "jitter", [0.1, 0.1, 0.1, 0.6], "augmentation.jitter.3 is 0.6, expected less than"),
        ("optimizer", "lr", -1.0, "optimizer.lr is -1.0, expected greater than 0"),
        ("optimizer", "momentum", 0.0, "optimizer: nesterov needs momentum > 0"),
        (
            "federation",
            "clients_per_round",
            2,
            "federation.clients_per_round is 2, expected at most the 1 clients",
        ),
    ],
)
def test_a_wrong_value(section, key, value, said, train_fails):
    assert said in train_fails(CONFIGURATION, **{section: {key: value}})


def test_all_mistakes_are_told_at_once(train_fails):
    line = train_fails(CONFIGURATION, run={"seed": -1}, compute={"precision": "fp16"}, evaluation={"evry": 2})
    assert "run.seed" in line
    assert "compute.precision" in line
    assert "did you mean evaluation.every?" in line


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run.rounds", "--set run.rounds: expected section.key=value"),
        ("=3", "--set =3: expected section.key=value"),
        ("run.name.first=x", "--set run.name.first=x: name is a value, not a section"),
        ("run.rouds=3", "unknown key run.rouds (did you mean run.rounds?)"),
    ],
)
def test_a_bad_override(override, said, train_fails):
    assert said in train_fails(CONFIGURATION, arguments=["--set", override])


def test_no_experiment_file(fails, tmp_path):
    line = fails(CONFIGURATION, "train", tmp_path / "none.toml", "--run-dir", tmp_path / "run")
    assert line == f"{tmp_path / 'none.toml'}: cannot read the experiment: No such file or directory"
    assert not (tmp_path / "run").exists()


def test_a_folder_in_place_of_the_experiment(fails, tmp_path):
    assert "Is a directory" in fails(CONFIGURATION, "train", tmp_path, "--run-dir", tmp_path / "run")


@pytest.mark.parametrize("content", [b"[run]\nrounds = = 3\n", b"\x89HDF\r\n\x1a\n\xff\xfe"])
def test_an_experiment_that_is_not_toml(content, fails, tmp_path):
    (tmp_path / "bad.toml").write_bytes(content)
    line = fails(CONFIGURATION, "train", tmp_path / "bad.toml", "--run-dir", tmp_path / "run")
    assert line.startswith(f"{tmp_path / 'bad.toml'}: not a TOML file: ")


def test_no_run_directory_named(fails, tmp_path):
    assert "--run-dir" in fails(CONFIGURATION, "train", tmp_path / "x.toml")


def test_no_archives(train_fails):
    assert "data.archives" in train_fails(CONFIGURATION, archives=[])


def test_a_missing_archive(train_fails, site, tmp_path):
    missing = tmp_path / "missing.h5"
    assert train_fails(DATA, [site, missing]) == f"{missing}: no such file"
    assert not (tmp_path / "run").exists()


def test_an_archive_of_another_format_version(train_fails, site):
    with h5py.File(site, "r+") as file:
        file.attrs["format_version"] = 99
    line = train_fails(DATA)
    assert line.startswith(f"{site}: format version 99, expected ")


def test_a_foreign_hdf5_file(train_fails, tmp_path):
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["images"] = [1, 2, 3]
    line = train_fails(DATA, [tmp_path / "foreign.h5"])
    assert line.startswith(f"{tmp_path / 'foreign.h5'}: ")
    assert "expected an archive of fedreid_mpi" in line


def test_a_file_that_is_no_hdf5(train_fails, tmp_path):
    (tmp_path / "text.h5").write_text("not an archive")
    assert train_fails(DATA, [tmp_path / "text.h5"]) == f"{tmp_path / 'text.h5'}: not an HDF5 file"


def test_a_truncated_archive(train_fails, site):
    os.truncate(site, site.stat().st_size // 2)
    assert train_fails(DATA).startswith(f"{site}: ")


def test_archives_of_different_image_sizes(train_fails, site, tmp_path):
    larger = write_site(tmp_path / "larger.h5", images=10, height=64, width=32)
    line = train_fails(DATA, [site, larger])
    assert line.startswith(f"{larger}: images are 64x32, expected 32x16 as in {site}")


def test_a_client_with_a_single_image(train_fails, tmp_path):
    lone = write_site(tmp_path / "lone.h5", images=1)
    assert train_fails(DATA, [lone]) == f"{lone}: 1 training images for client lone, expected at least two"


def test_a_client_without_training_images(train_fails, tmp_path):
    empty = write_site(tmp_path / "empty.h5", images=0)
    line = train_fails(DATA, [empty])
    assert line.startswith(f"{empty}: ")
    assert "train" in line


def test_a_client_smaller_than_a_batch_when_partial_batches_are_left_out(train_fails):
    line = train_fails(CONFIGURATION, federation={"drop_last": True, "batch_size": 16})
    assert line.startswith("client site: 10 training images are less than federation.batch_size = 16")


def test_a_run_directory_that_holds_a_run(fails, site, tmp_path, capsys):
    path = write_experiment(tmp_path / "good.toml", [site], run={"rounds": 1})
    assert run(["train", str(path), "--run-dir", str(tmp_path / "held")]) == 0
    capsys.readouterr()
    before = {file: file.read_bytes() for file in (tmp_path / "held").rglob("*") if file.is_file()}
    line = fails(CONFIGURATION, "train", path, "--run-dir", tmp_path / "held")
    assert line.startswith(f"--run-dir {tmp_path / 'held'}: already holds a run")
    assert before == {file: file.read_bytes() for file in (tmp_path / "held").rglob("*") if file.is_file()}
    assert read_run(tmp_path / "held").rounds.tolist() == [0, 1]


def test_a_run_directory_below_a_file(fails, site, tmp_path):
    path = write_experiment(tmp_path / "good.toml", [site])
    below = site / "run"
    line = fails(CONFIGURATION, "train", path, "--run-dir", below)
    assert line == f"--run-dir {below}: cannot be written: Not a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_directory_without_permission(fails, site, tmp_path):
    path = write_experiment(tmp_path / "good.toml", [site])
    (tmp_path / "locked").mkdir(mode=0o500)
    line = fails(CONFIGURATION, "train", path, "--run-dir", tmp_path / "locked" / "run")
    assert "cannot be written: Permission denied" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_where_there_is_none(train_fails):
    line = train_fails(CONFIGURATION, compute={"device": "cuda"})
    assert line.startswith('compute.device is "cuda", but ')
    assert line.endswith(" offers no GPU")


def test_training_that_diverges_everywhere(site, tmp_path, capsys):
    path = write_experiment(tmp_path / "bad.toml", [site], optimizer={"lr": 1e30})
    with pytest.raises(SystemExit) as end:
        run(["train", str(path), "--run-dir", str(tmp_path / "run")])
    assert end.value.code == TOO_FEW_CLIENTS
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith(ERROR)] == [lines[-1]]
    assert "of none of 1 clients are finite" in lines[-1]
    assert read_run(tmp_path / "run").rounds.tolist() == [0]  # the last commit stands


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_weights_that_are_a_pickle_of_code_are_not_executed(train_fails, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": Malicious(tmp_path / "executed")}, path)
    line = train_fails(DATA, arguments=["--weights", path])
    assert line.startswith(f"model.weights: {path}: not a readable file of weights")
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "executed")))
    assert str(path) in train_fails(DATA, arguments=["--weights", path])
    assert not (tmp_path / "executed").exists()


def test_weights_that_are_missing(train_fails, tmp_path):
    path = tmp_path / "none.pth"
    assert train_fails(DATA, model={"weights": "none.pth"}) == f"model.weights: {path}: no such file"


def test_weights_of_another_architecture(train_fails, tmp_path):
    """The first leaf that differs is named."""
    other = build_network(config.Model(backbone="resnet18"), None, 0).backbone.state_dict()
    torch.save(other, tmp_path / "resnet18.pth")
    line = train_fails(DATA, arguments=["--weights", tmp_path / "resnet18.pth"])
    assert line.startswith(f"{tmp_path / 'resnet18.pth'}: has no tensor stem.weight, expected one of shape ")
    assert line.endswith(" of small")


def test_weights_of_another_shape_or_kind(train_fails, tmp_path):
    own = build_network(config.Model(backbone="small"), None, 0).backbone.state_dict()
    path = tmp_path / "changed.safetensors"
    save_file(own | {"blocks.0.conv2.weight": torch.zeros(32, 32, 1, 1)}, path)
    line = train_fails(DATA, arguments=["--weights", path])
    assert "tensor blocks.0.conv2.weight has shape [32, 32, 1, 1], expected [32, 32, 3, 3] of small" in line
    save_file(own | {"bn.weight": torch.ones(32, dtype=torch.int64)}, path)
    line = train_fails(DATA, arguments=["--weights", path])
    assert "tensor bn.weight is torch.int64, expected floating point" in line
    save_file(own | {"extra": torch.zeros(1)}, path)
    assert "tensor extra is not part of the model of small" in train_fails(
        DATA, arguments=["--weights", path]
    )


def test_weights_that_are_no_mapping(train_fails, tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    line = train_fails(DATA, arguments=["--weights", tmp_path / "list.pth"])
    assert "expected a mapping of names to tensors" in line


@pytest.mark.parametrize(
    ("content", "sections", "code", "said"),
    [
        ("missing.h5", {}, DATA, "missing.h5: no such file"),
        ("site.h5", {"compute": {"threads": 0}}, CONFIGURATION, "compute.threads is 0"),
    ],
)
def test_one_line_from_all_ranks_together(content, sections, code, said, site, tmp_path):
    path = write_experiment(tmp_path / "bad.toml", [content], **sections)
    ended = fedreid(2, "train", path, "--run-dir", "run", cwd=tmp_path)
    assert ended.code == code, ended.stderr
    assert len(ended.errors) == 1
    assert said in ended.errors[0]
    assert "Traceback" not in ended.stderr


def test_a_wrong_command_line_is_told_once_by_all_ranks_together(tmp_path):
    ended = fedreid(2, "train", "x.toml", "--rundir", "run", cwd=tmp_path)
    assert ended.code == CONFIGURATION
    assert len(ended.errors) == 1, ended.stderr
    assert "--run-dir" in ended.errors[0]


def test_help_needs_neither_torch_nor_mpi(tmp_path):
    code = (
        "import sys\nfrom fedreid_mpi.cli import run\nrun(['train', '--help'])\n"
        "sys.exit(bool({'torch', 'mpi4py', 'h5py'} & set(sys.modules)))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
