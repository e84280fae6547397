"""The layout of results archives, study files and feature files, in tables, which verification uses."""

from dataclasses import replace

import numpy as np

from fedreid_mpi.results.layouts import stored_axes, stored_path, stored_scales, stored_type
from fedreid_mpi.results.schema import FIELDS, FORMAT_VERSION, KIND, STUDY_KIND, STUDY_VERSION, Field
from fedreid_mpi.storage.hdf5.digest import CONTENT_DIGEST
from fedreid_mpi.storage.hdf5.schema import Attribute, Column, Schema
from fedreid_mpi.storage.hdf5.tree import type_name

_DIGEST = Attribute(CONTENT_DIGEST, "text", "Digest of everything else, see below")


def _column(field: Field, version: int) -> Column:
    return Column(
        stored_path(field, version),
        type_name(np.dtype(stored_type(field, version))),
        stored_axes(field, version),
        field.units,
        field.description,
        field.optional,
    )


RESULTS = Schema(
    kind=KIND,
    version=FORMAT_VERSION,
    attributes=(
        Attribute("kind", "text", f"'{KIND}'"),
        Attribute("format_version", "integer", f"{FORMAT_VERSION}"),
        Attribute("description", "text", "What the file is, for whoever opens it"),
        Attribute("name", "text", "Name of the run"),
        Attribute("seed", "integer", "Of the run"),
        Attribute("configuration", "text", "All settings, as TOML; paths relative to the run directory"),
        Attribute("git_commit", "text", "Commit of the program's source; empty where there is none"),
        Attribute(
            "git_dirty",
            "boolean",
            "Whether the program's source was changed since that commit",
            optional=True,
        ),
        Attribute("source_digest", "text", "Digest of the program's source, see below", optional=True),
        Attribute("versions", "text", "Versions of the libraries, as a JSON object"),
        Attribute("parameters", "integer", "Number of values that a client shares with the server"),
        Attribute("attempt", "integer", "1 for the first start of the run"),
        Attribute(
            "run_id",
            "text",
            "Drawn at the first start of the run, kept by later attempts; two runs never have the same",
            optional=True,
        ),
        _DIGEST,
    ),
    columns=tuple(_column(field, FORMAT_VERSION) for field in FIELDS),
    scales=stored_scales(),
)
"""All of a results archive."""

RESULTS_2 = replace(
    RESULTS,
    version=2,
    columns=tuple(_column(field, 2) for field in FIELDS if field.path != "other_client"),
    scales=stored_scales(2),
)
"""All of a results archive of version 2."""

STUDY = Schema(
    kind=STUDY_KIND,
    version=STUDY_VERSION,
    attributes=(
        Attribute("kind", "text", f"'{STUDY_KIND}'"),
        Attribute("format_version", "integer", f"{STUDY_VERSION}"),
        Attribute("description", "text", "What the file is, for whoever opens it"),
    ),
    columns=tuple(
        Column(f"index/{name}", type, ("run",), units, description)
        for name, type, units, description in (
            ("label", "text", "", "Name of the run's group in /runs"),
            ("run_id", "text", "", "Identity of the run"),
            ("name", "text", "", "Name of the run"),
            ("seed", "int64", "1", "Seed of the run"),
            ("mode", "text", "", "Whether models are shared: federated, local or centralised"),
            ("state", "text", "", "How the run stood: running, interrupted, done, failed or unfinished"),
            ("round", "int64", "1", "Last round in the archive; -1: none"),
            ("rounds", "int64", "1", "Number of rounds that the run was to have"),
            ("attempt", "int64", "1", "Number of the last start"),
            (
                "rank_1",
                "float64",
                "1",
                "Mean rank-1 over the datasets at the last evaluation; NaN: not scored",
            ),
            ("mean_ap", "float64", "1", "Mean average precision likewise"),
            ("written", "text", "", "When the run's last file was written: UTC, ISO 8601"),
            ("source", "text", "", "Where the run was collected from"),
            ("digest", "text", "", "The run's content_digest"),
            ("linked", "int8", "1", "Whether /runs has a link to the run, which lies in another file"),
        )
    ),
    scales={"run": "index/label"},
)
"""The index of a study file; the groups below ``/runs`` are laid out as `RESULTS`."""

STUDY_1 = replace(
    STUDY,
    version=1,
    columns=(*STUDY.columns[:-1], replace(STUDY.columns[-1], type="bool")),
    scales={},
)
"""The index of a study file of version 1; the groups below ``/runs`` are laid out as `RESULTS_2`."""

# Kind and version are those of `fedreid_mpi.results.features`, which would import torch.
FEATURES = Schema(
    kind="fedreid_mpi features",
    version=2,
    attributes=(
        Attribute("kind", "text", "'fedreid_mpi features'"),
        Attribute("format_version", "integer", "2"),
        Attribute("model", "text", "File of the model that made the features"),
        Attribute("protocol", "text", "How a ranked gallery became scores"),
        Attribute("seed", "integer", "Of the protocol's draws"),
        Attribute("multi_query", "boolean", "Whether features of a query's multi_query images were averaged"),
        Attribute(
            "mirror",
            "boolean",
            "Whether features of mirror images were added; files of earlier versions: true",
            optional=True,
        ),
        Attribute("reranked", "boolean", "Whether galleries were re-ranked by k-reciprocal neighbours"),
        Attribute("k1", "integer", "Of the re-ranking", optional=True),
        Attribute("k2", "integer", "Of the re-ranking", optional=True),
        Attribute("lambda", "number", "Of the re-ranking: weight of the original distance", optional=True),
        _DIGEST,
    ),
    columns=(
        Column("<name>/image", "int64", ("image",), "", "Row of each image, from 0"),
        Column("<name>/feature", "int32", ("feature",), "", "Position of each value in a feature, from 0"),
        Column("<name>/features", "float32", ("image", "feature"), "", "Features of each image, of length 1"),
        Column("<name>/pid", "int64", ("image",), "", "Person in each image; -1 is junk"),
        Column("<name>/camid", "int64", ("image",), "", "Camera that took each image"),
        Column(
            "<name>/path", "text", ("image",), "", "Original file of each image, below the dataset's folder"
        ),
        *(
            Column(f"<name>/splits/<k>/{role}", "int64", (role,), "", f"{use}: rows", role == "multi_query")
            for role, use in (
                ("query", "Images to search for"),
                ("gallery", "Images to search in"),
                ("multi_query", "Images averaged into queries"),
            )
        ),
        *(
            Column(f"<name>/splits/<k>/{name}", "float64", ("query",), "", description)
            for name, description in (
                ("average_precision", "Average precision of each query; NaN: no match, or none is defined"),
                ("inverse_negative_penalty", "Matches over the rank of the last one; NaN likewise"),
                ("first_match", "Rank of each query's first true match, averaged over draws; 0: no match"),
            )
        ),
    ),
    scales={
        "image": "<name>/image",
        "feature": "<name>/feature",
        **{role: f"<name>/splits/<k>/{role}" for role in ("query", "gallery", "multi_query")},
    },
)
"""All of a feature file; each dataset's group ``<name>`` has attributes ``archive`` and ``source_digest``."""

FEATURES_1 = replace(
    FEATURES,
    version=1,
    columns=tuple(
        replace(column, axes=tuple(axis if axis == "feature" else None for axis in column.axes))
        for column in FEATURES.columns
        if column.path not in ("<name>/image", "<name>/feature")
    ),
    scales={},
)
"""All of a feature file of version 1."""
