"""Small dataset folders in the original layouts, with real image files."""

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

MARKET = {
    "bounding_box_train/0002_c1s1_000451_03.jpg": (2, 1, "train"),
    "bounding_box_train/0002_c2s1_000301_01.jpg": (2, 2, "train"),
    "bounding_box_train/1500_c6s3_077419_03.jpg": (1500, 6, "train"),
    "query/0001_c1s1_001051_00.jpg": (1, 1, "query"),
    "query/0001_c5s1_001051_00.jpg": (1, 5, "query"),
    "bounding_box_test/-1_c1s1_000401_03.jpg": (-1, 1, "gallery"),
    "bounding_box_test/0000_c3s1_000151_01.jpg": (0, 3, "gallery"),
    "bounding_box_test/0001_c2s1_001976_01.jpg": (1, 2, "gallery"),
    "bounding_box_test/0001_c4s6_001976_12.jpg": (1, 4, "gallery"),
}
DUKE = {
    "bounding_box_train/0001_c2_f0046182.jpg": (1, 2, "train"),
    "bounding_box_train/0001_c8_f0046302.jpg": (1, 8, "train"),
    "query/0005_c2_f0046985.jpg": (5, 2, "query"),
    "bounding_box_test/0005_c5_f0051341.jpg": (5, 5, "gallery"),
    "bounding_box_test/7139_c1_f0051341.jpg": (7139, 1, "gallery"),
}
CUHK03 = {
    "bounding_box_train/0001_c1_1.png": (1, 1, "train"),
    "bounding_box_train/0001_c2_6.png": (1, 2, "train"),
    "query/0003_c1_21.png": (3, 1, "query"),
    "bounding_box_test/0003_c2_26.png": (3, 2, "gallery"),
    "bounding_box_test/0003_c1_22.png": (3, 1, "gallery"),
}
# People of the test set start again at 0; there are two in training, 0 and 1, so theirs begin at 2.
MSMT17 = {
    "train/0000/0000_000_01_0303morning_0015_0.jpg": (0, 1, "train"),
    "train/0000/0000_001_14_0303noon_0015_1_ex.jpg": (0, 14, "train"),
    "train/0001/0001_000_10_0113afternoon_0398_0.jpg": (1, 10, "train"),
    "train/0001/0001_001_09_0114morning_0398_0.jpg": (1, 9, "train"),
    "test/0000/0000_000_15_0302noon_0001_0.jpg": (2, 15, "query"),
    "test/0000/0000_001_03_0302noon_0001_0.jpg": (2, 3, "gallery"),
    "test/0001/0001_000_04_0302noon_0001_0.jpg": (3, 4, "gallery"),
}
MSMT17_LISTS = {
    "list_train.txt": (
        "0000/0000_000_01_0303morning_0015_0.jpg 0\n"
        "0000/0000_001_14_0303noon_0015_1_ex.jpg 0\n"
        "0001/0001_000_10_0113afternoon_0398_0.jpg 1\n"
    ),
    "list_val.txt": "0001/0001_001_09_0114morning_0398_0.jpg 1\n",
    "list_query.txt": "0000/0000_000_15_0302noon_0001_0.jpg 0\n",
    "list_gallery.txt": ("0000/0000_001_03_0302noon_0001_0.jpg 0\n0001/0001_000_04_0302noon_0001_0.jpg 1\n"),
}
CUHK02 = {
    f"P{pair}/cam{side}/{person:03d}_{image}.png": (10_000 * pair + person, 2 * pair + side - 3, "public")
    for pair in (1, 2, 3, 4, 5)
    for side in (1, 2)
    for person in (1, 12)
    for image in (1, 2)
}
CUHK01 = [f"{person:04d}{image:03d}.png" for person in (1, 2, 5, 7, 971) for image in (1, 2, 3, 4)]
VIPER = [
    f"{camera}/{person:03d}_{angle}.bmp"
    for person in (0, 1, 4, 872)
    for camera, angle in (("cam_a", 45), ("cam_b", 180))
]
# Person to the number of views in each sequence.
THREEDPES_VIEWS = {1: (2, 1), 2: (3,), 3: (1, 1, 2), 10: (1, 2), 100: (2, 2, 1, 1)}
THREEDPES = [
    f"{person}_{sequence}_FRAME_{frame}_RGB.bmp"
    for person, views in THREEDPES_VIEWS.items()
    for sequence, number in enumerate(views, start=1)
    for frame in range(number)
]
ILIDS_VIEWS = {1: 2, 2: 5, 3: 4, 4: 2, 119: 3}
ILIDS = [
    f"{person:04d}{image:03d}.jpg" for person, number in ILIDS_VIEWS.items() for image in range(1, number + 1)
]
# Four shared people, two that only camera A saw, three that only camera B saw (201 is two people).
PRID_A, PRID_B = (1, 2, 3, 200, 201, 202), (1, 2, 3, 200, 201, 203, 749)
PRID = [
    *(f"single_shot/cam_a/person_{person:04d}.png" for person in PRID_A),
    *(f"single_shot/cam_b/person_{person:04d}.png" for person in PRID_B),
    *(f"multi_shot/cam_a/person_{p:04d}/{f:04d}.png" for p in PRID_A for f in range(1, 13)),
    *(f"multi_shot/cam_b/person_{p:04d}/{f:04d}.png" for p in PRID_B for f in range(1, 8)),
]

# Three people whom both cameras saw, 5 whom the first one saw alone.
CAVIAR = {
    "0001001.jpg": (1, 0, "query"),
    "0001010.jpg": (1, 0, "query"),
    "0001011.jpg": (1, 1, "gallery"),
    "0002002.jpg": (2, 0, "query"),
    "0002020.jpg": (2, 1, "gallery"),
    "0072009.jpg": (72, 0, "query"),
    "0072012.jpg": (72, 1, "gallery"),
    "0072013.jpg": (72, 1, "gallery"),
}
CAVIAR_ALONE = ("0005001.jpg", "0005002.jpg")
# As fold 0 has it, which trains on 1 and 250.
GRID = {
    "probe/0001_1_25004_107_32_106_221.jpeg": (1, 1, "train"),
    "probe/0002_3_25008_97_42_86_191.jpeg": (2, 3, "query"),
    "probe/0017_8_25012_97_42_86_191.jpeg": (17, 8, "query"),
    "probe/0250_2_25016_97_42_86_191.jpeg": (250, 2, "train"),
    "gallery/0000_4_25020_97_42_86_191.jpeg": (0, 4, "gallery"),
    "gallery/0000_5_25024_97_42_86_191.jpeg": (0, 5, "gallery"),
    "gallery/0000_5_25028_97_42_86_191.jpeg": (0, 5, "gallery"),
    "gallery/0001_2_25032_107_32_106_221.jpeg": (1, 2, "train"),
    "gallery/0002_6_25036_97_42_86_191.jpeg": (2, 6, "gallery"),
    "gallery/0017_7_25040_97_42_86_191.jpeg": (17, 7, "gallery"),
    "gallery/0250_1_25044_97_42_86_191.jpeg": (250, 1, "train"),
}
GRID_FOLDS = ((1, 250), (17, 2), (2, 250))

FOLDERS = {
    "market1501": "Market-1501-v15.09.15",
    "dukemtmc-reid": "DukeMTMC-reID",
    "msmt17": "MSMT17_V1",
    "cuhk03-np": "cuhk03-np/detected",
    "prid2011": "prid_2011",
    "cuhk01": "CUHK01/campus",
    "viper": "VIPeR",
    "3dpes": "3DPeS/RGB",
    "ilids": "i-LIDS_Pedestrian/Persons",
    "cuhk02": "CUHK02/Dataset",
    "caviar4reid": "CAVIARa",
    "grid": "underground_reid",
}
IMAGES: dict[str, Iterable[str]] = {
    "market1501": MARKET,
    "dukemtmc-reid": DUKE,
    "msmt17": MSMT17,
    "cuhk03-np": CUHK03,
    "prid2011": PRID,
    "cuhk01": CUHK01,
    "viper": VIPER,
    "3dpes": THREEDPES,
    "ilids": ILIDS,
    "cuhk02": CUHK02,
    "caviar4reid": (*CAVIAR, *CAVIAR_ALONE),
    "grid": GRID,
}


def picture(name: str, width: int = 24, height: int = 48) -> Image.Image:
    """A smooth random image that depends on nothing but ``name``."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    coarse = Image.fromarray(rng.integers(0, 256, (6, 3, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BILINEAR)


def write_image(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(name).save(path)


def write_tree(root: Path, dataset: str) -> Path:
    """Write a small dataset below ``root`` in its original folder, and return that folder."""
    folder = root / FOLDERS[dataset]
    for name in IMAGES[dataset]:
        write_image(folder / name, name)
    if dataset == "msmt17":
        for name, text in MSMT17_LISTS.items():
            (folder / name).write_text(text)
    if dataset == "grid":
        write_grid_folds(folder)
    return folder


def write_grid_folds(folder: Path, folds: Iterable[Iterable[int]] = GRID_FOLDS) -> Path:
    """Write GRID's file of folds in MATLAB's version 5: whom to train on is each struct's third field."""
    structs = [
        {"features": np.ones((3, 2)), "images": np.ones((1, 2)), "people": np.array([fold], np.float64)}
        for fold in folds
    ]
    cells = np.empty((1, len(structs)), object)
    cells[0] = structs
    path = folder / "features_and_partitions.mat"
    scipy.io.savemat(path, {"features": np.ones((5, 7)), "trainIdxAll": cells})
    return path


def touch_tree(folder: Path, names: Iterable[str]) -> Path:
    """Write empty files: enough for readers, which open no image."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder
