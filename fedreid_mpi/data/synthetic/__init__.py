"""The synthetic benchmark: procedural pedestrians as image files in the ten datasets' original layouts.

No real person is shown, nothing has to be downloaded, and everything downstream reads the files with the same
readers as the real datasets. The nine client datasets differ in clothes, light, colours, cameras and size.
"""

from fedreid_mpi.data.synthetic.layouts import LAYOUTS
from fedreid_mpi.data.synthetic.scales import SCALES
from fedreid_mpi.data.synthetic.variants import ORIGINAL, VARIANTS
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
]
