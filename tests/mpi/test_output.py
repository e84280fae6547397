"""What commands print: names as they are, whatever the output can show, or where there is none any more."""

import fcntl
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from fedreid_mpi.cli import run
from fedreid_mpi.data.archive import ArchiveContents, write_archive
from fedreid_mpi.storage.run_directory import read_status
from support.launching import ERROR
from support.small import HEIGHT, WIDTH, draw, write_experiment, write_site
from support.trees import write_image

PROGRAM = (sys.executable, "-m", "fedreid_mpi")
MARKUP = r"a [/] b [bold]c :smile: $\foo$ {d}"


def call(redirection, *arguments, cwd, **environment):
    """Run a command in a shell, its output redirected."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *PROGRAM, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A folder with archives, an experiment over them and its finished run, and what that wrote in ASCII."""
    folder = tmp_path_factory.mktemp("output")
    archives = [write_site(folder / "größe.h5", 10), write_site(folder / "[x].h5", 12, seed=2)]
    write_experiment(folder / "e.toml", archives, run={"name": MARKUP})
    return folder, call("", "train", "e.toml", "--run-dir", "run", cwd=folder, PYTHONIOENCODING="ascii")


@pytest.fixture(scope="module")
def folder(played):
    return played[0]


@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        (">&-", "standard output is closed"),
        (">/dev/full", "standard output cannot be written: No space left on device"),
        ("> >(exec true)", "standard output was closed by its reader"),
    ],
)
@pytest.mark.parametrize("arguments", [("inspect", "[x].h5"), ("results", "list", "run"), ("--help",)])
def test_a_command_whose_output_is_lost_ends_in_one_line(folder, redirection, said, arguments):
    ended = call(redirection, *arguments, cwd=folder)
    assert ended.stderr.decode() == f"{ERROR} {said}\n"
    assert ended.returncode == 1


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_an_error_that_nobody_can_be_told_has_its_code(folder, redirection):
    assert call(redirection, "inspect", "none.h5", cwd=folder).returncode == 3
    assert call(f"{redirection} >&-", "inspect", "[x].h5", cwd=folder).returncode == 1


@pytest.mark.parametrize(
    "redirection",
    [">/dev/full", ">&- 2>&- <&-", ">/dev/full 2>/dev/full", "| head -1; exit ${PIPESTATUS[0]}"],
)
def test_a_run_outlives_its_output(folder, tmp_path, redirection):
    ended = call(redirection, "train", "e.toml", "--run-dir", str(tmp_path / "run"), cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert ERROR.encode() not in ended.stderr
    assert read_status(tmp_path / "run").state == "done"
    assert run(["results", "show", str(tmp_path / "run")]) == 0  # nothing was printed into a file of the run


def test_an_output_that_does_not_block_is_waited_for(folder):
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    os.write(writing, b"x" * size)
    with subprocess.Popen([*PROGRAM, "--help"], stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        time.sleep(1.5)
        assert process.poll() is None
        with os.fdopen(reading, "rb") as file:
            shown = file.read()
        assert process.wait(timeout=60) == 0, process.stderr.read()
    assert b"Usage" in shown
    assert shown.endswith(b"follow them.\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("results", "show", "run"),
        ("inspect", "größe.h5"),
        ("evaluate", "--help"),
        ("results", "watch", "run"),
    ],
)
def test_what_the_output_cannot_show_is_a_question_mark(folder, encoding, arguments):
    ended = call("", *arguments, cwd=folder, PYTHONIOENCODING=encoding)
    assert ended.returncode == 0, ended.stderr
    shown = ended.stdout.decode(encoding)
    assert ("gr??e" if encoding == "ascii" else "größe") in shown or "--help" in arguments
    if encoding == "ascii":
        assert "?" in shown


def test_a_run_is_told_where_the_output_is_ascii(played):
    _, ended = played
    assert ended.returncode == 0, ended.stderr
    assert "gr??e (10)" in ended.stdout.decode("ascii")


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "run"),
        ("list", "run"),
        ("watch", "run", "--once"),
        ("compare", "run"),
        ("report", "run", "-o", "{out}"),
    ],
)
def test_names_are_shown_as_they_are(folder, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(folder)
    capsys.readouterr()
    assert run(["results", *(word.format(out=tmp_path / "out") for word in arguments)]) == 0
    shown = capsys.readouterr().out
    assert MARKUP in shown
    assert "[x]" in shown or arguments[0] in ("list", "report")


def test_names_of_prepare_evaluate_and_progress_are_shown_as_they_are(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORCE_COLOR", "1")  # progress bars are drawn
    write_image(tmp_path / "a.png", "a")
    (tmp_path / "m.csv").write_text("path,pid,camid,split\na.png,1,1,train\n")
    custom = ["prepare", "--dataset", "custom", "--size", "32x16"]
    for name in ("[x]", "[bold]y", ":smile:"):
        assert run([*custom, "--name", name, "m.csv", "[z].h5"]) == 0
        captured = capsys.readouterr()
        assert name in captured.out
        assert name in captured.err
        assert run(["inspect", "[z].h5"]) == 0
        assert f"{name}: 1 image" in re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    model = folder / "run" / "models" / "global.safetensors"
    assert run(["evaluate", str(model), str(folder / "[x].h5")]) == 0
    assert "[x]" in capsys.readouterr().out


def test_all_consoles_are_made_in_one_place():
    package = Path(__file__).parents[2] / "fedreid_mpi"
    for path in package.rglob("*.py"):
        if path.name != "console.py":
            assert not re.search(r"\bConsole\(|rich\.markup|from_markup", path.read_text(encoding="utf-8")), (
                path
            )


def test_warnings_of_libraries_are_for_those_who_ask():
    code = (
        "import warnings, logging; from fedreid_mpi.cli.streams import open_streams; open_streams(); "
        "warnings.warn('of a library'); logging.getLogger('some').warning('of a library')"
    )
    for asked, shown in (("", False), ("default", True)):
        ended = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONWARNINGS": asked},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert ("of a library" in ended.stderr) is shown
        assert ended.stdout == ""


def write_one_camera(path):
    """An archive with test people whom one camera alone has seen."""
    roles = ["train"] * 6 + ["query"] * 2 + ["gallery"] * 2
    contents = ArchiveContents(
        name=path.stem,
        layout="drawn",
        height=HEIGHT,
        width=WIDTH,
        paths=[f"{role}/{number:04d}.png" for number, role in enumerate(roles)],
        pids=[3, 3, 3, 6, 6, 6, 1000, 1001, 1000, 1001],
        camids=[1] * len(roles),
        splits=[{role: [n for n, each in enumerate(roles) if each == role] for role in dict.fromkeys(roles)}],
        attributes={},
    )
    pictures = draw(5, 3, len(roles))
    write_archive(path, contents, ((picture, bytes(32)) for picture in pictures))
    return path


@pytest.mark.parametrize("with_others", [False, True])
def test_no_query_with_a_match_is_a_dash_everywhere(folder, tmp_path, monkeypatch, capsys, with_others):
    monkeypatch.chdir(tmp_path)
    archives = [write_one_camera(tmp_path / "one.h5"), *([folder / "[x].h5"] * with_others)]
    experiment = write_experiment(tmp_path / "e.toml", archives)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(["train", str(experiment), "--run-dir", "run"]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if "  round " in line]
        assert len(lines) == 3
        assert all("global rank-1 – mAP –" in line and "nan" not in line for line in lines)
        for words in (
            ["show", "run"],
            ["list", "run"],
            ["compare", "run"],
            ["watch", "run", "--once"],
            ["report", "run", "-o", "report"],
            ["export", "run", "-o", "x.csv"],
            ["export", "run", "-o", "x.tex"],
        ):
            assert run(["results", *words]) == 0, words
            assert "nan" not in capsys.readouterr().out
        assert run(["evaluate", "run/models/global.safetensors", "one.h5"]) == 0
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\bnan\b", page)
    plots = {path.name for path in (tmp_path / "run" / "plots").iterdir()}
    assert ("rank1_by_dataset.png" in plots) is with_others


def test_a_folder_whose_name_is_no_text(folder, tmp_path, monkeypatch, capsys):
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff"))
    place.mkdir()
    monkeypatch.chdir(tmp_path)
    (place / "run").symlink_to(folder / "run")
    for words in (["report", "-o", "report"], ["collect", "-o", "c.h5"], ["export", "-o", "x.csv"]):
        assert run(["results", words[0], str(place / "run"), *words[1:]]) == 0
    assert run(["inspect", "c.h5", "--verify"]) == 0
    write_experiment(place / "e.toml", [Path("x.h5")])
    monkeypatch.chdir(place)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        run(["train", "e.toml", "--run-dir", "new"])
    assert "is not UTF-8, expected another name" in capsys.readouterr().err
