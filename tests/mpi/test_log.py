"""The log of a run: times, ranks and levels; and its curves in TensorBoard while it goes on."""

import logging
import re

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from fedreid_mpi.cli import run
from support.small import write_experiment

TIMED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?: rank 0)?  ")


def events_of(path):
    data, events = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def curves(events):
    """Step to name to value; as TensorBoard, forget what a later start begins before."""
    steps = {}
    for event in events:
        if event.session_log.status == SessionLog.START:
            steps = {step: values for step, values in steps.items() if step < event.step}
        if event.HasField("summary"):
            steps[event.step] = {value.tag: value.simple_value for value in event.summary.value}
    return steps


@pytest.fixture(scope="module")
def trained(archives, tmp_path_factory):
    """A run of one round that was resumed twice, with what each attempt printed."""
    folder = tmp_path_factory.mktemp("log")
    experiment = write_experiment(folder / "e.toml", archives[:2], run={"rounds": 1})
    root, own = list(logging.getLogger().handlers), logging.getLogger("fedreid_mpi")
    command = ["train", str(experiment), "--run-dir", str(folder / "run"), "--log", "tensorboard"]
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        for rounds, option in ((1, []), (2, ["--verbose"]), (3, ["--quiet"])):
            if rounds == 3:  # the curves of this one cannot be written
                (folder / "run" / "tensorboard").rename(folder / "curves")
                (folder / "run" / "tensorboard").write_text("in the way")
            with (folder / f"{rounds}.txt").open("w+") as file:
                patch.setattr("sys.stdout", file)
                assert run([*command, "--resume", "--set", f"run.rounds={rounds}", *option]) == 0
                file.seek(0)
                printed.append(file.read().splitlines())
    assert logging.getLogger().handlers == root
    assert own.handlers == []
    assert own.level == logging.NOTSET
    return folder, printed


def test_every_line_has_its_time_and_where_asked_for_its_rank(trained):
    _, (usual, verbose, quiet) = trained
    assert all(TIMED.match(line) for line in usual + verbose + quiet)
    assert not any(" rank 0  " in line for line in usual)
    assert all(" rank 0  " in line for line in verbose)
    assert sum("  round 1/1  " in line for line in usual) == 1
    assert any(re.search(r"rank 0  round 2: .*: loss [\d.]+, \d+ steps", line) for line in verbose)
    assert not any(" steps, " in line for line in usual)


def test_a_quiet_run_says_what_is_out_of_the_ordinary(trained):
    folder, (*_, quiet) = trained
    (line,) = quiet
    where = folder / "run" / "tensorboard"
    assert line.endswith(f"--log tensorboard: {where}: cannot be written: File exists; the run continues")


def test_the_curves_are_those_of_the_finished_run_and_go_on_in_a_resume(trained, tmp_path):
    folder, _ = trained
    first, second = sorted((folder / "curves").iterdir(), key=lambda path: path.name.rpartition(".")[2])
    assert [path.name.rpartition(".")[2] for path in (first, second)] == ["attempt001", "attempt002"]
    live = [events_of(path) for path in (first, second)]
    assert all(events[0].file_version == "brain.Event:2" for events in live)
    assert [events[1].step for events in live] == [0, 2]
    assert all(events[1].session_log.status == SessionLog.START for events in live)
    found = curves(live[0] + live[1])
    arguments = ["--format", "tensorboard", "-o", str(tmp_path / "tb")]
    assert run(["results", "export", str(folder / "run"), *arguments]) == 0
    (exported,) = (tmp_path / "tb").rglob("events*")
    expected = curves(events_of(exported))
    assert list(found) == [0, 1, 2]
    assert found == {step: expected[step] for step in found}
    assert any(name.startswith("loss/") for name in found[2])


def test_verbose_and_quiet_exclude_each_other(trained, capsys):
    folder, _ = trained
    command = ["train", str(folder / "e.toml"), "--run-dir", str(folder / "x"), "--verbose", "--quiet"]
    assert run(command) == 2
    assert "--verbose and --quiet: expected one of them" in capsys.readouterr().err
