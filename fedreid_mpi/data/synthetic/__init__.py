"""The synthetic benchmark: procedural pedestrians as image files in the datasets' original layouts.

No real person is shown, nothing has to be downloaded, and everything downstream reads the files with the same
readers as the real datasets. The datasets differ in clothes, light, colours, cameras and size.
"""

from fedreid_mpi.data.synthetic.layouts import LAYOUTS
from fedreid_mpi.data.synthetic.scales import SCALES
from fedreid_mpi.data.synthetic.variants import ORIGINAL, VARIANTS, written_as
from fedreid_mpi.data.synthetic.writer import Written, count_images, join_digests, write_benchmark

__all__ = [
    "LAYOUTS",
    "ORIGINAL",
    "SCALES",
    "VARIANTS",
    "Written",
    "count_images",
    "join_digests",
    "write_benchmark",
    "written_as",
]
