"""Small trees of the small datasets, and the files of splits that users hold of them."""

import json

import numpy as np
import scipy.io

from support import trees

ILIDS_VID_PEOPLE = (1, 5, 12, 319)
ILIDS_VID_FRAMES = 3
LS_SET = [[1, 3, 2, 4], [4, 2, 1, 3]]


def ilids_vid(kind):
    """Names of all images below ``i-LIDS-VID``."""
    frames = [""] if kind == "images" else [f"_{number:05d}" for number in range(317, 317 + ILIDS_VID_FRAMES)]
    return [
        f"{kind}/cam{camera}/person{pid:03d}/cam{camera}_person{pid:03d}{frame}.png"
        for camera in (1, 2)
        for pid in ILIDS_VID_PEOPLE
        for frame in frames
    ]


def write_ls_set(root, rows=LS_SET):
    path = root / "train-test people splits" / "train_test_splits_ilidsvid.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"ls_set": np.array(rows, np.uint16)}, format="5")
    return path


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_identity_split(folder, views, trainval, probe, gallery=None):
    """Write a ``meta.json`` and a ``split.json`` as the DGD scripts do; return the latter."""
    identities = [
        [
            [f"cam_{camera}/{number:05d}_{image:05d}.png" for image in range(count)]
            for camera, count in enumerate(counts)
        ]
        for number, counts in enumerate(views)
    ]
    meta = {"name": "x", "shot": "multiple", "num_cameras": 2, "identities": identities}
    write_json(folder / "meta.json", meta)
    gallery = probe if gallery is None else gallery
    return write_json(
        folder / "split.json", {"trainval": trainval, "test_probe": probe, "test_gallery": gallery}
    )


def elsewhere(name, prefix="/home/somebody/reid/viper/VIPeR"):
    return f"{prefix}/{name}"


def viper_lists(trained, tested, swap=False):
    """One of torchreid's splits of VIPeR: people are numbered anew in training and in test."""
    names = {}
    for name in trees.VIPER:
        names.setdefault(int(name[6:9]), {})[name[4]] = name

    def entries(people, cameras):
        return [
            [elsewhere(names[pid]["ab"[camera]]), label, camera]
            for label, pid in enumerate(people)
            for camera in cameras
        ]

    query, gallery = (1, 0) if swap else (0, 1)
    return {
        "train": entries(trained, (0, 1)),
        "query": entries(tested, (query,)),
        "gallery": entries(tested, (gallery,)),
        "num_train_pids": len(trained),
        "num_query_pids": len(tested),
        "num_gallery_pids": len(tested),
    }
