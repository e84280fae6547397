"""The big four in the variants in which they come, MATLAB files included, and the benchmark's own layouts."""

import json
from collections import Counter
from itertools import count

import h5py
import numpy as np
from scipy.io import savemat

from support import trees

GT_BBOX = {
    "gt_bbox/0001_c1s1_001051_00.jpg": (1, 1, "multi_query"),
    "gt_bbox/0001_c5s2_001051_00.jpg": (1, 5, "multi_query"),
    "gt_bbox/0001_c5s3_002051_00.jpg": (1, 5, "multi_query"),
    "gt_bbox/0001_c2s1_001976_01.jpg": None,  # no query in camera 2
    "gt_bbox/0002_c1s1_000451_03.jpg": None,  # trained on
}

# The same images as trees.MSMT17, repackaged.
MSMT17_MARKET = {
    "bounding_box_train/0000_c1_0001.jpg": (0, 1, "train"),
    "bounding_box_train/0000_c14_0002.jpg": (0, 14, "train"),
    "bounding_box_train/0001_c10_0003.jpg": (1, 10, "train"),
    "bounding_box_train/0001_c9_0004.jpg": (1, 9, "train"),
    "query/0000_c15_0001.jpg": (2, 15, "query"),
    "bounding_box_test/0000_c3_0001.jpg": (2, 3, "gallery"),
    "bounding_box_test/0001_c4_10002.jpg": (3, 4, "gallery"),
}
MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MSMT17_MARKET_V1 = {
    f"{MARKET_FOLDERS[role]}/{path.rpartition('/')[2]}": (pid, camid, role)
    for path, (pid, camid, role) in trees.MSMT17.items()
}

PROCESSED_FOLDERS = {
    "market1501": "Market",
    "dukemtmc-reid": "Duke",
    "msmt17": "MSMT17",
    "cuhk03-np": "cuhk03-np-detected",
    "prid2011": "prid",
    "cuhk01": "cuhk01",
    "viper": "viper",
    "3dpes": "3dpes",
    "ilids": "ilids",
    "cuhk02": "cuhk02",
}
BIG = {
    "market1501": {**trees.MARKET, **GT_BBOX},
    "dukemtmc-reid": trees.DUKE,
    "msmt17": MSMT17_MARKET,
    "cuhk03-np": trees.CUHK03,
}


def write(root, names):
    for name in names:
        trees.write_image(root / name, name)
    return root


def processed(dataset):
    """A big set in the pytorch layout: path to facts for train_all, and those of train and val alone."""
    everything, parts, seen = {}, {"train": {}, "val": {}}, set()
    for path, facts in BIG[dataset].items():
        folder, _, name = path.rpartition("/")
        person = name.split("_")[0]
        role = {"bounding_box_train": "train_all", "bounding_box_test": "gallery", "gt_bbox": "multi-query"}
        everything[f"{role.get(folder, folder)}/{person}/{name}"] = facts
        if folder == "bounding_box_train":
            parts["val" if person not in seen else "train"][f"{person}/{name}"] = facts
            seen.add(person)
    return everything, parts


# Six identities of two cameras: number of images in each. Identity 4 has none in camera 0.
VIEWS = [(1, 1), (2, 1), (1, 2), (1, 1), (0, 2), (2, 2)]
SPLIT = {"trainval": [1, 5], "test_probe": [0, 2, 3], "test_gallery": [0, 2, 3, 4]}


def camera_files(extension):
    return {
        f"cam_{camid}/{pid:05d}_{image:05d}.{extension}": (pid, camid)
        for pid, counts in enumerate(VIEWS)
        for camid, count in enumerate(counts)
        for image in range(count)
    }


def camera_role(pid, camid):
    if pid in SPLIT["trainval"]:
        return "train"
    return "query" if camid == 0 else "gallery"


def write_cameras(root, extension, split=True):
    """The DGD scripts' layout."""
    files = camera_files(extension)
    write(root, files)
    if split:
        identities = [[[], []] for _ in VIEWS]
        for path, (pid, camid) in files.items():
            identities[pid][camid].append(path)
        meta = {"name": "any", "shot": "multiple", "num_cameras": 2, "identities": identities}
        (root / "meta.json").write_text(json.dumps(meta))
        (root / "split.json").write_text(json.dumps(SPLIT))
    return files


def small_processed(extension):
    """A small set in the pytorch layout: path to facts."""
    facts = {}
    for path, (pid, camid) in camera_files(extension).items():
        role = camera_role(pid, camid)
        name = path.replace("/", "_")
        facts[f"{'train_all' if role == 'train' else role}/{pid}/{name}"] = (pid, camid, role)
    return facts


# CUHK03 as a MATLAB file: people in each pair, and which of them have which columns.
PEOPLE = (3, 1, 2, 1, 1)
COLUMNS = {"detected": (1, 2, 6, 7, 10), "labeled": (1, 3, 6, 9)}
# Persons 2 and 6 lack the last column.
SHORT = (2, 6)
# Numbered through all pairs: 1, 2, 3 | 4 | 5, 6 | 7 | 8.
TRAINED, TESTED = (1, 4, 5, 7, 8), (2, 3, 6)
CLASSIC = [[(1, 2), (3, 1)], [(1, 1), (5, 1)], [(4, 1), (2, 1)]]


def cuhk03_shots(half):
    """Name to (pid, camera, image)."""
    shots, pid = {}, 0
    for pair, people in enumerate(PEOPLE, start=1):
        for person in range(1, people + 1):
            pid += 1
            for column in COLUMNS[half][: -1 if pid in SHORT else None]:
                camera = 1 if column <= 5 else 2
                name = f"{pair}_{person:03d}_{camera}_{column:02d}.png"
                size = {"width": 10 + pid, "height": 20 + column}
                shots[name] = (pid, camera, np.asarray(trees.picture(f"{half}/{name}", **size)))
    return shots


def new_protocol(half):
    """Name to role: of a tested person the first image of each camera is a query."""
    roles, seen = {}, Counter()
    for name, (pid, camera, _) in cuhk03_shots(half).items():
        seen[pid, camera] += 1
        tested = "query" if seen[pid, camera] == 1 else "gallery"
        roles[name] = "train" if pid in TRAINED else tested
    return roles


def write_config(path, half, **changes):
    savemat(path, config(half) | changes)


def write_config73(path, half):
    """As MATLAB would save it anew."""
    numbers = count()
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in config(half).items():
            _put(file, name, value, numbers)


def config(half):
    shots, roles = cuhk03_shots(half), new_protocol(half)
    names = list(shots)
    content = {
        "filelist": _column(np.array([name]) for name in names),
        "labels": np.array([[shots[name][0]] for name in names], np.uint16),
        "camId": np.array([[shots[name][1]] for name in names], np.uint8),
    }
    for role in ("train", "query", "gallery"):
        indices = [[number] for number, name in enumerate(names, start=1) if roles[name] == role]
        content[f"{role}_idx"] = np.array(indices, np.float64)
    return content


def _column(values):
    values = list(values)
    cells = np.empty((len(values), 1), object)
    for index, value in enumerate(values):
        cells[index, 0] = value
    return cells


def _cells(half):
    """A 5 x 1 array of M x 10 arrays of images, or of empty arrays."""
    shots, pairs = cuhk03_shots(half), []
    for pair, people in enumerate(PEOPLE, start=1):
        cells = np.empty((people, 10), object)
        for row, column in np.ndindex(cells.shape):
            name = f"{pair}_{row + 1:03d}_{1 + column // 5}_{column + 1:02d}.png"
            cells[row, column] = shots[name][2] if name in shots else np.zeros((0, 0), np.uint8)
        pairs.append(cells)
    return _column(pairs)


def write_mat5(path, compressed=False):
    content = {half: _cells(half) for half in COLUMNS}
    content["testsets"] = _column(np.array(people, np.float64) for people in CLASSIC)
    savemat(path, content, do_compression=compressed)


def write_mat73(path):
    """As MATLAB writes it: 512 bytes before the HDF5 file, axes reversed, cells behind references."""
    numbers = count()
    with h5py.File(path, "w", userblock_size=512) as file:
        for half in COLUMNS:
            _put(file, half, _cells(half), numbers)
        testsets = _column(np.array(people, np.float64) for people in CLASSIC)
        _put(file, "testsets", testsets, numbers)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128))


def _put(file, name, value, numbers):
    if value.dtype == object:
        references = np.empty(value.shape, h5py.ref_dtype)
        for index in np.ndindex(value.shape):
            references[index] = _put(file, f"#refs#/{next(numbers):x}", value[index], numbers).ref
        item = file.create_dataset(name, data=references.T, dtype=h5py.ref_dtype)
        item.attrs["MATLAB_class"] = np.bytes_("cell")
    elif value.dtype.kind == "U":
        item = file.create_dataset(name, data=np.array([[ord(letter)] for letter in value.item()], np.uint16))
        item.attrs["MATLAB_class"] = np.bytes_("char")
    elif value.size == 0:
        item = file.create_dataset(name, data=np.array(value.shape, np.uint64))
        item.attrs["MATLAB_empty"] = np.uint8(1)
        item.attrs["MATLAB_class"] = np.bytes_("uint8")
    else:
        item = file.create_dataset(name, data=value.T)
        item.attrs["MATLAB_class"] = np.bytes_("double" if value.dtype == np.float64 else "uint8")
    return item
