"""The layout of a dataset archive, in one table, which writer and verification use."""

from fedreid_mpi.data.archive.format import FORMAT_VERSION, KIND, SplitRole
from fedreid_mpi.storage.hdf5.digest import CONTENT_DIGEST
from fedreid_mpi.storage.hdf5.schema import Attribute, Column, Schema

_USES = {
    SplitRole.TRAIN: "Images to train on",
    SplitRole.QUERY: "Images to search for",
    SplitRole.GALLERY: "Images to search in",
    SplitRole.MULTI_QUERY: "Images that stand in for a query of the same person and camera",
    SplitRole.PUBLIC: "Images that server and clients share, used without their labels",
}

DATASET = Schema(
    kind=KIND,
    version=FORMAT_VERSION,
    attributes=(
        Attribute("kind", "text", f"'{KIND}'"),
        Attribute("format_version", "integer", f"{FORMAT_VERSION}"),
        Attribute("name", "text", "Name of the dataset, e.g. 'market1501'"),
        Attribute("layout", "text", "Variant of the folder tree that it was read from"),
        Attribute("software", "text", "Program that wrote the file, and its version"),
        Attribute("source_digest", "text", "Digest of the images as they came, see below"),
        Attribute(CONTENT_DIGEST, "text", "Digest of everything else but the pixels, see below"),
        Attribute("image_height", "integer", "Rows of an image"),
        Attribute("image_width", "integer", "Columns of an image"),
        Attribute("resampling", "text", "Filter that brought the images to this size", optional=True),
        Attribute("split_rule", "text", "Name of the splits", optional=True),
        Attribute("split_seed", "integer", "Seed of what was drawn; absent if nothing was", optional=True),
        Attribute("training", "text", "'trainval'; 'train' without validation images", optional=True),
        Attribute("subset_allowed", "boolean", "Whether deviating counts were let pass", optional=True),
        Attribute("skipped_files", "integer", "Length of /skipped", optional=True),
        Attribute("duplicate_files", "integer", "Images whose source repeats another's", optional=True),
        Attribute("cameras", "integer", "Number of cameras in split 0", optional=True),
        Attribute("train_identities", "integer", "People to train on in split 0", optional=True),
        Attribute("train_images", "integer", "Images to train on in split 0", optional=True),
        Attribute("query_identities", "integer", "People to search for in split 0", optional=True),
        Attribute("query_images", "integer", "Queries in split 0", optional=True),
        Attribute("gallery_images", "integer", "Images to search in, in split 0", optional=True),
        Attribute("multi_query_images", "integer", "Images of multi-query in split 0", optional=True),
        Attribute("identities", "integer", "People in a public dataset", optional=True),
        Attribute("images", "integer", "Images in a public dataset", optional=True),
    ),
    columns=(
        Column("images", "uint8", ("image", "row", "column", 3), "intensity, 0 to 255", "Images as RGB"),
        Column("pid", "int32", ("image",), "", "Person in each image; -1 is junk"),
        Column("camid", "int32", ("image",), "", "Camera that took each image"),
        Column("path", "text", ("image",), "", "Original file of each image, below the dataset's folder"),
        Column("source_sha256", "uint8", ("image", 32), "", "SHA-256 of each source: a file, or bare pixels"),
        Column("pixel_sha256", "uint8", ("image", 32), "", "SHA-256 of the bytes of each image in /images"),
        Column("notes", "text", ("note",), "", "What a user should know"),
        Column("skipped", "text", ("file",), "", "Original files left out, as they could not be decoded"),
        *(
            Column(f"splits/<k>/{role}", "int64", (None,), "", f"{use}: sorted indices", optional=True)
            for role, use in _USES.items()
        ),
    ),
)  # fmt: skip
"""All of a dataset archive."""
