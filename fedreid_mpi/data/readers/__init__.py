"""One reader a dataset: from a folder in its original layout to the list of its images.

A reader lists, it does not open images. To add a dataset, write a module with a ``READER`` and name it here.
"""

from fedreid_mpi.data.readers import (
    cuhk01,
    cuhk02,
    cuhk03_np,
    dukemtmc_reid,
    ilids,
    market1501,
    msmt17,
    prid2011,
    threedpes,
    viper,
)
from fedreid_mpi.data.readers.base import Reader, Record

# The nine clients from the largest to the smallest, then the public dataset.
_MODULES = (msmt17, dukemtmc_reid, market1501, cuhk03_np, prid2011, cuhk01, viper, threedpes, ilids, cuhk02)

READERS: dict[str, Reader] = {module.READER.name: module.READER for module in _MODULES}
"""Name of a dataset to its reader."""

__all__ = ["READERS", "Reader", "Record"]
