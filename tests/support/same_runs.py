"""Whether two runs are the same, byte by byte, and whether a run did what it was asked."""

import numpy as np

from fedreid_mpi.results import read_run, stable_figures


def model_files(run_dir):
    """The bytes of all models of a run, those of its clients included."""
    folder = run_dir / "models"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


def assert_same_run(run_dir, reference):
    models = model_files(run_dir)
    expected = model_files(reference)
    assert models.keys() == expected.keys()
    assert [name for name in expected if models[name] != expected[name]] == []
    figures, expected_figures = stable_figures(run_dir), stable_figures(reference)
    assert figures.keys() == expected_figures.keys()
    for name, values in expected_figures.items():
        assert figures[name].dtype == values.dtype, name
        np.testing.assert_array_equal(figures[name], values, name, strict=True)


def assert_did(run_dir, name):
    """Everything a combination's name says was done, every round, and nothing that it does not say."""
    kind, bn, *chosen = name.split("-")
    results = read_run(run_dir)
    assert results.events == ()
    assert results.finite[1:].all()
    assert np.isfinite(results.weight[1:]).all()
    assert len(results.header.clients) == (3 if kind == "dataset" else 6)
    assert np.isfinite(results.distillation_loss[1:]).all() == ("distillation" in chosen)
    assert np.isfinite(results.cosine_distance[1:]).all() == ("cosine" in chosen)
    assert results.groupings.tolist() == ([1, 2] if "clustering" in chosen else [])
    groups = results.group[1:].tolist()
    if "clustering" not in chosen:
        together = [0] * len(groups[0])
        assert groups == ([[0, 0, 1, 1, 2, 2], together] if kind == "edge" else [together] * 2)
    assert f'bn = "{bn}"' in results.header.configuration
