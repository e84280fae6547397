"""One reader per dataset: from a folder, in any variant of the dataset, to the list of its images.

A reader lists, it does not open images. To add a dataset, write a module with a ``READER`` and name it here.
"""

from fedreid_mpi.data.readers import (
    caviar4reid,
    cuhk01,
    cuhk02,
    cuhk03,
    dukemtmc_reid,
    grid,
    ilids,
    ilids_vid,
    manifest,
    market1501,
    msmt17,
    prid2011,
    threedpes,
    viper,
)
from fedreid_mpi.data.readers.base import Choices, Listing, Load, Reader, Record, Variant
from fedreid_mpi.data.readers.recognition import (
    Recognised,
    find_dataset,
    is_known_as,
    recognise,
    require_sense,
)

# The benchmark's nine clients from the largest to the smallest and its public dataset; then the others, first
# the two that it only tests on.
_BENCHMARK = (msmt17, dukemtmc_reid, market1501, cuhk03, prid2011, cuhk01, viper, threedpes, ilids, cuhk02)
_OTHERS = (caviar4reid, grid, ilids_vid, manifest)

READERS: dict[str, Reader] = {module.READER.name: module.READER for module in _BENCHMARK + _OTHERS}
"""Name of a dataset to its reader."""

__all__ = [
    "READERS",
    "Choices",
    "Listing",
    "Load",
    "Reader",
    "Recognised",
    "Record",
    "Variant",
    "find_dataset",
    "is_known_as",
    "recognise",
    "require_sense",
]
