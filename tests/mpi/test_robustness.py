"""Files and disks as they are: links, permissions, full disks and signals, for `prepare` and `synth`."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import pytest

from fedreid_mpi import cli
from fedreid_mpi.config import load_experiment
from fedreid_mpi.config.suite import load_suite
from fedreid_mpi.data.archive import DatasetArchive, verify_dataset
from fedreid_mpi.errors import DataError
from fedreid_mpi.storage.atomic import ABANDONED_AFTER
from support import trees, trees_small
from support.rights import as_nobody

QUERY = "query/0001_c1s1_001051_00.jpg"


@pytest.fixture
def market(tmp_path):
    return trees.write_tree(tmp_path, "market1501")


@pytest.fixture
def output(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "market1501.h5"


def command(source, output, *more):
    return [
        "prepare",
        "--dataset",
        "market1501",
        str(source),
        str(output),
        "--size",
        "40x16",
        "--allow-subset",
        *more,
    ]


def prepare(source, output, *more):
    return cli.run(command(source, output, *more))


def launch(source, output, *more, limit=None):
    """Start `prepare` as a process of its own, which may write files of ``limit`` bytes at most."""
    code = "import os, sys, resource; from fedreid_mpi import cli; leave = sys.exit; "
    if limit is not None:
        # The limit holds for all files: leave without what a measuring of coverage would write at the end.
        code += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); leave = os._exit; "
    code += "leave(cli.run(sys.argv[1:]))"
    arguments = [sys.executable, "-c", code, *command(source, output, *more)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def error_line(capsys):
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def is_whole(path):
    return verify_dataset(path, lambda _: None) == ()


def test_hidden_files_and_archive_litter_are_ignored(market, output):
    assert prepare(market, output) == 0
    before = output.read_bytes()
    (market / "query" / "._0001_c1s1_001051_00.jpg").write_bytes(b"\0\5\26\7")
    (market / "query" / ".DS_Store").write_bytes(b"x")
    (market / "query" / "Thumbs.db").write_bytes(b"x")
    (market / "__MACOSX" / "query").mkdir(parents=True)
    (market / "query" / "__MACOSX").mkdir()
    assert prepare(market, output) == 0
    assert output.read_bytes() == before


def test_links_are_followed(market, output, tmp_path):
    assert prepare(market, output) == 0
    before = output.read_bytes()
    shutil.move(market / QUERY, tmp_path / "elsewhere.jpg")
    (market / QUERY).symlink_to(tmp_path / "elsewhere.jpg")
    shutil.move(market / "bounding_box_train", tmp_path / "train")
    (market / "bounding_box_train").symlink_to(tmp_path / "train")
    (tmp_path / "link").symlink_to(market)
    assert prepare(tmp_path / "link", output) == 0
    assert output.read_bytes() == before


@pytest.mark.parametrize("goal", ["nowhere.jpg", "0001_c1s1_001051_00.jpg"])  # the second is a loop
def test_a_link_that_leads_nowhere_is_named(market, output, capsys, goal):
    (market / QUERY).unlink()
    (market / QUERY).symlink_to(goal)
    assert prepare(market, output) == 3
    assert "0001_c1s1_001051_00.jpg" in error_line(capsys)
    assert not output.exists()


@pytest.mark.parametrize("place", ["query", QUERY, "."])
def test_what_may_not_be_read_is_named(capsys, place):
    with tempfile.TemporaryDirectory() as name:  # unlike tmp_path, it can be opened to others
        folder = Path(name)
        folder.chmod(0o777)
        market = trees.write_tree(folder, "market1501")
        assert prepare(market, folder / "x.h5") == 0  # all modules are loaded while that is allowed
        capsys.readouterr()
        (market / place).chmod(0)
        with as_nobody():
            assert prepare(market, folder / "y.h5") == 3
        (market / place).chmod(0o755)
        assert str(market) in error_line(capsys)
        assert not (folder / "y.h5").exists()


def test_names_may_hold_anything(tmp_path, output):
    names = [
        "a b.jpg",
        "größer.png",
        "人.bmp",
        'quote".jpg',
        "comma,.jpg",
        "new\nline.jpg",
        "-v.jpg",
        "%s {0}.jpg",
    ]
    folder = tmp_path / "mein Ordner ä\n人"
    for name in names:
        trees.write_image(folder / "sub dir" / name, name)
    rows = "".join(
        '"sub dir/{}",{},{},{}\n'.format(
            name.replace('"', '""'), 1 + i // 4, i, "train" if i < 4 else "gallery"
        )
        for i, name in enumerate(names)
    )
    (folder / "manifest.csv").write_text("path,pid,camid,split\n" + rows, encoding="utf-8")
    arguments = ["prepare", "--dataset", "custom", "--name", "own", str(folder / "manifest.csv"), str(output)]
    assert cli.run([*arguments, "--size", "48x24"]) == 0
    archive = DatasetArchive.open(output)
    assert archive.paths == sorted(f"sub dir/{name}" for name in names)
    assert is_whole(output)


def test_notes_tell_what_was_noticed(market, output, capsys):
    trees.picture("any").save(market / QUERY, "PNG")
    assert prepare(market, output) == 0
    note = f"1 image is PNG by content, not by name: '{QUERY}'"
    assert note in DatasetArchive.open(output).notes
    assert note[:30] in capsys.readouterr().out


@pytest.mark.parametrize("limit", [0, 1000, 3000, 10_000, 20_000, 24_000])
def test_a_file_that_may_not_grow_ends_in_one_line_and_leaves_the_old_one(market, output, limit):
    output.write_text("the old one")
    process = launch(market, output, limit=limit)
    _, error = process.communicate(timeout=60)
    assert error == f"fedreid-mpi: error: {output}: cannot be written: File too large\n"
    assert process.returncode == 2
    assert output.read_text() == "the old one"
    assert list(output.parent.iterdir()) == [output]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(market, small_disk):
    process = launch(market, small_disk / "x.h5")
    _, error = process.communicate(timeout=60)
    assert error == f"fedreid-mpi: error: {small_disk / 'x.h5'}: cannot be written: No space left on device\n"
    assert process.returncode == 2
    assert not list(small_disk.iterdir())


def test_two_at_once_on_one_target_both_end_well(market, output):
    for _ in range(2):
        processes = [launch(market, output) for _ in range(2)]
        for process in processes:
            _, error = process.communicate(timeout=120)
            assert process.returncode == 0, error
        assert is_whole(output)
        assert list(output.parent.iterdir()) == [output]


@pytest.fixture
def long_work(tmp_path, output):
    """Arguments of a `prepare` that takes some seconds, and writes 98 MB."""
    folder = tmp_path / "many"
    names = [f"{number}.png" for number in range(1000)]
    trees.write_image(folder / names[0], "one")
    for name in names[1:]:
        os.link(folder / names[0], folder / name)
    rows = "".join(f"{name},1,0,train\n" for name in names)
    (folder / "manifest.csv").write_text("path,pid,camid,split\n" + rows)
    custom = ("prepare", "--dataset", "custom", "--name", "own", "--jobs", "1")
    return [sys.executable, "-m", "fedreid_mpi", *custom, str(folder / "manifest.csv"), str(output)]


def begun(command, folder, grown=1):
    """Start a command, and return it once an entry of a folder has so many bytes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            if any(each.stat().st_size >= grown for each in folder.iterdir()):
                return process
        time.sleep(0.002)
    process.kill()
    pytest.fail(f"nothing to interrupt: {process.communicate()}")


def test_one_that_is_killed_leaves_no_archive_and_the_next_removes_what_it_left(long_work, output):
    for grown in (1, 20_000_000, 70_000_000):
        process = begun(long_work, output.parent, grown)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        (left,) = output.parent.iterdir()  # of the one before nothing
        assert left != output
        with pytest.raises(DataError, match=str(left)):
            DatasetArchive.open(left)
    assert cli.run([*long_work[3:], "--size", "16x8"]) == 0
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_one_that_is_asked_to_end_leaves_nothing(long_work, output, number, heeded):
    process = begun(long_work, output.parent, 1_000_000)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.split("\n") == ["", "fedreid-mpi: error: interrupted", ""]
    assert not list(output.parent.iterdir())


def test_one_that_ignores_a_hangup_goes_on(long_work, output):
    process = begun(["nohup", *long_work, "--size", "64x32"], output.parent)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert is_whole(output)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_synth_leaves_nothing_either(tmp_path, jobs, heeded):
    folder = tmp_path / "datasets"
    folder.mkdir()
    synth = [sys.executable, "-m", "fedreid_mpi", "synth", str(folder), "--jobs", jobs]
    for number in (signal.SIGTERM, signal.SIGHUP):
        process = begun([*synth, "--scale", "full", "--only", "msmt17"], folder)
        time.sleep(1.5)  # drawing processes start
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (130, "\nfedreid-mpi: error: interrupted\n")
        assert not list(folder.iterdir())
    process = begun([*synth, "--scale", "full", "--only", "msmt17"], folder)
    time.sleep(1.5)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)  # which waits for all that write to its streams
    assert len(list(folder.iterdir())) == 1
    assert cli.run(["synth", str(folder), "--only", "viper"]) == 0
    assert [path.name for path in folder.iterdir()] == ["VIPeR"]


def test_what_another_may_still_write_is_left(market, output):
    """A living process of this host, and one of another host that wrote a minute ago."""
    host, old = socket.gethostname(), time.time() - 2 * ABANDONED_AFTER
    foreign = output.with_name(".market1501.h5.else.where.12.tmp")
    living = output.with_name(f".market1501.h5.{host}.{os.getppid()}.tmp")
    other = output.with_name(f".other.h5.{host}.{2**22 + 1}.tmp")
    gone = output.with_name(f".market1501.h5.{host}.{2**22 + 1}.tmp")
    for path in (foreign, living, other, gone):
        path.touch()
    assert prepare(market, output) == 0
    assert set(output.parent.iterdir()) == {output, foreign, living, other}
    os.utime(foreign, (old, old))
    assert prepare(market, output) == 0
    assert set(output.parent.iterdir()) == {output, living, other}


def test_a_file_that_cannot_be_opened_is_not_called_damaged(market, output, capsys):
    assert prepare(market, output) == 0
    limit = (
        "import resource, sys; from fedreid_mpi.cli import run; import fedreid_mpi.cli.inspect; "
        "import fedreid_mpi.results.file_kinds; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); sys.exit(run(sys.argv[1:]))"
    )
    with output.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for command, environment, said in (
            (["-c", limit], {}, "cannot be read: Too many open files"),
            (["-m", "fedreid_mpi"], {"HDF5_USE_FILE_LOCKING": "TRUE"}, "locked by another program"),
        ):
            ended = subprocess.run(
                [sys.executable, *command, "inspect", str(output)],
                env=os.environ | environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ended.returncode == 3
            assert ended.stderr.startswith(f"fedreid-mpi: error: {output}: {said}"), ended.stderr
            assert ended.stderr.count("\n") == 1


def test_an_archive_that_is_still_written_is_not_called_damaged(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        file.flush()
        shutil.copy(tmp_path / "x.h5", tmp_path / "copy.h5")
    with pytest.raises(DataError, match=r"copy\.h5: still open for writing, or its writer was killed"):
        DatasetArchive.open(tmp_path / "copy.h5")


def test_an_archive_of_a_crashed_writer_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("images", (3, 4, 4, 3), "u1")
    with pytest.raises(DataError, match="not an archive of fedreid_mpi, but another HDF5 file"):
        DatasetArchive.open(tmp_path / "x.h5")


@pytest.mark.parametrize(
    "launcher", [{"SLURM_PROCID": "3"}, {"OMPI_COMM_WORLD_RANK": "1"}, {"PMI_RANK": "2"}]
)
def test_commands_that_join_no_ranks_tell_their_own_mistakes(
    market, output, tmp_path, monkeypatch, capsys, launcher
):
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    started = time.monotonic()
    for arguments, code, said in (
        (["prepare", "--datset", "viper", str(market), str(output)], 2, "No such option"),
        (["prepare", "--dataset", "viper", str(market), str(output)], 3, "not recognised as viper"),
        (["synth", str(tmp_path), "--scale", "huge"], 2, "'huge' is not one of"),
        (["inspect", str(tmp_path / "none.h5")], 3, "none.h5"),
        (["results", "show", str(tmp_path / "none")], 3, "no such run directory"),
        (["results", "export", str(tmp_path), "-o", "x.xlsx"], 2, "expected .csv"),
        (["evaluate", str(tmp_path / "none"), str(output)], 3, "no such model file"),
        (["stop", str(tmp_path / "none")], 3, "none"),
        (["trian"], 2, "No such command"),
    ):
        ended = cli.run(arguments)
        assert ended == code, arguments
        assert said in error_line(capsys)
    assert time.monotonic() - started < 2
    assert cli.run(["train", "--no-such-option"]) == 0  # rank 0 tells
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_files_may_start_with_a_byte_order_mark(tmp_path, output, encoding):
    def mark(path):
        path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
        return path

    def written(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return mark(tmp_path / name)

    market = trees.write_tree(tmp_path, "market1501")
    (market / "counts.json").write_text('{"cameras": 6, "train_images": 3}')
    mark(market / "counts.json")
    plain = ["prepare", "--size", "40x16", "--dataset"]
    assert cli.run([*plain, "market1501", str(market), str(output)]) == 0
    msmt17 = trees.write_tree(tmp_path, "msmt17")
    for name in trees.MSMT17_LISTS:
        mark(msmt17 / name)
    assert cli.run([*plain, "msmt17", str(msmt17), str(output), "--allow-subset"]) == 0
    viper = trees.write_tree(tmp_path, "viper")
    splits = mark(
        trees_small.write_json(tmp_path / "splits.json", [trees_small.viper_lists([872, 0], [1, 4])])
    )
    more = ["--splits", "standard", "--split-file", str(splits), "--allow-subset"]
    assert cli.run([*plain, "viper", str(viper), str(output), *more]) == 0
    rows = [f"VIPeR/{name},{number % 4},0,train\n" for number, name in enumerate(trees.VIPER)]
    table = written("table.csv", "path,pid,camid,split\n" + "".join(rows))
    assert cli.run([*plain, "custom", "--name", "x", str(table), str(output), "--allow-subset"]) == 0
    experiment = written("e.toml", 'data = {archives = ["a.h5"]}\n[run]\nname = "é"\n')
    assert load_experiment(experiment).run.name == "é"
    suite = 'study = {name = "é", base = "e.toml", seeds = [1]}\n[methods.one]\n'
    assert load_suite(written("suite.toml", suite)).name == "é"
