"""What an archive must hold, as values: one table a kind of archive, and the check of a file against it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import h5py

from fedreid_mpi.storage.hdf5.container import plain
from fedreid_mpi.storage.hdf5.digest import CONTENT_DIGEST, content_digest
from fedreid_mpi.storage.hdf5.tree import read_attributes, type_name

ValueType = Literal["text", "integer", "number", "boolean"]

_TYPES: Mapping[ValueType, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool, int),
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a file's root.

    Attributes
    ----------
    name
        Of the attribute.
    type
        Of its value, a scalar.
    description
        What it says.
    optional
        Whether it may be absent.
    """

    name: str
    type: ValueType
    description: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """One dataset, or several alike.

    Attributes
    ----------
    path
        Group and name; ``<k>`` means a whole number and ``<name>`` any name.
    type
        Of its elements, as `fedreid_mpi.storage.hdf5.tree.type_name` says it.
    axes
        Of each axis its name, which has one length in all of a file or where its scale is one, or its length,
        or None for any.
    units
        Empty where there are none.
    description
        What it holds.
    optional
        Whether it may be absent.
    """

    path: str
    type: str
    axes: tuple[str | int | None, ...]
    units: str
    description: str
    optional: bool = False

    def fits(self, name: str) -> bool:
        """Whether a dataset's full name is of this column."""
        pattern = re.escape("/" + self.path).replace("<k>", r"\d+").replace("<name>", "[^/]+")
        return re.fullmatch(pattern, name) is not None


@dataclass(frozen=True, slots=True)
class Schema:
    """All that files of one kind hold.

    Attributes
    ----------
    kind, version
        Root attributes ``kind`` and ``format_version``.
    attributes
        Of the root.
    columns
        The datasets; groups are those that their names ask for.
    scales
        Axis to the path of the dataset that is its dimension scale, with ``<k>`` and ``<name>`` as in
        columns; empty where a kind has no scales.
    """

    kind: str
    version: int
    attributes: tuple[Attribute, ...]
    columns: tuple[Column, ...]
    scales: Mapping[str, str] = field(default_factory=dict)

    def column(self, name: str) -> Column | None:
        """Return the column that a dataset's full name is of."""
        return next((column for column in self.columns if column.fits(name)), None)

    def relative_to(self, group: str) -> "Schema":
        """Return the part of the schema that is in a group, with names relative to it."""
        inside = [column for column in self.columns if column.path.startswith(f"{group}/")]
        columns = [replace(column, path=column.path.removeprefix(f"{group}/")) for column in inside]
        scales = {axis: path.removeprefix(f"{group}/") for axis, path in self.scales.items()}
        return replace(self, columns=tuple(columns), scales=scales)

    def scale(self, axis: str, name: str) -> str:
        """Return the full name of an axis's scale for one dataset; where it has none, the axis."""
        if axis not in self.scales:
            return axis
        parts = self.scales[axis].split("/")
        own = name.strip("/").split("/")
        return "/" + "/".join(
            own[place] if part in ("<k>", "<name>") else part for place, part in enumerate(parts)
        )


def find_faults(archive: h5py.Group, schema: Schema) -> Iterator[str]:
    """Compare an archive with what its kind must hold, its content digest included.

    Parameters
    ----------
    archive
        An open file, or the group of a larger file that is laid out as one.
    schema
        Of its kind.

    Yields
    ------
    str
        Each difference, in a few words.
    """
    yield from attribute_faults(archive, schema)
    yield from column_faults(archive, schema)
    yield from digest_faults(archive)


def digest_faults(archive: h5py.Group) -> Iterator[str]:
    """Compare the content with its digest, where there is one."""
    if CONTENT_DIGEST in archive.attrs and plain(archive.attrs[CONTENT_DIGEST]) != content_digest(archive):
        yield f"{CONTENT_DIGEST} is not that of the content: something was changed"


def attribute_faults(archive: h5py.Group, schema: Schema) -> Iterator[str]:
    """Compare attributes with those that there must be."""
    found = read_attributes(archive)
    for attribute in schema.attributes:
        if attribute.name not in found:
            if not attribute.optional:
                yield f"no attribute {attribute.name}"
        elif type(found[attribute.name]) not in _TYPES[attribute.type]:
            yield f"attribute {attribute.name} is {found[attribute.name]!r}, expected {attribute.type}"
    known = {attribute.name for attribute in schema.attributes}
    yield from (f"attribute {name!r} is unknown" for name in found if name not in known)


def column_faults(archive: h5py.Group, schema: Schema) -> Iterator[str]:
    """Compare datasets with those that there must be."""
    datasets: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            datasets[f"/{name}"] = item

    archive.visititems(visit)
    lengths: dict[str, int] = {}
    for name, dataset in datasets.items():
        column = schema.column(name)
        if column is None:
            yield f"{name} is unknown"
            continue
        if type_name(dataset.dtype) != column.type:
            yield f"{name} holds {type_name(dataset.dtype)}, expected {column.type}"
        if len(dataset.shape) != len(column.axes):
            yield f"{name} has {len(dataset.shape)} axes, expected {len(column.axes)}"
            continue
        for axis, length in zip(column.axes, dataset.shape, strict=True):
            if isinstance(axis, str):
                expected = lengths.setdefault(schema.scale(axis, name), length)
            else:
                expected = axis or length
            if length != expected:
                yield f"{name} has {length} of {axis}, expected {expected}"
    for column in schema.columns:
        if not (column.optional or any(map(column.fits, datasets))):
            yield f"no dataset /{column.path}"


def scale_faults(archive: h5py.Group, schema: Schema) -> Iterator[str]:
    """Compare the axes of an archive whose datasets are as they must be with what their scales must be."""
    prefix = archive.name.rstrip("/")
    found: list[h5py.Dataset] = []
    archive.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    for dataset in found:
        name = dataset.name.removeprefix(prefix)
        column = schema.column(name)
        for dimension, axis in zip(dataset.dims, column.axes if column else (), strict=True):
            if axis not in schema.scales:
                continue
            scale = schema.scale(str(axis), name)
            attached = [item.name.removeprefix(prefix) for item in dimension.values()]
            if dimension.label != axis or (attached != [scale] and name != scale):
                yield f"{name} has axis {dimension.label} on {attached}, expected {axis} on {scale}"
            if name == scale and not dataset.is_scale:
                yield f"{name} is not a dimension scale"
