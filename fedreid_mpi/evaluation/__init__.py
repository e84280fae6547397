"""Re-identification scores: features of test images, rankings of galleries, re-ranking."""

from fedreid_mpi.evaluation.features import (
    EvalShard,
    ExtractedFeatures,
    extract_features,
    extract_parts,
    query_then_gallery,
    shards,
)
from fedreid_mpi.evaluation.splits import (
    Scoring,
    images_to_score,
    mean_and_deviation,
    multi_query_images,
    rank_gallery,
    score_split,
)

__all__ = [
    "EvalShard",
    "ExtractedFeatures",
    "Scoring",
    "extract_features",
    "extract_parts",
    "images_to_score",
    "mean_and_deviation",
    "multi_query_images",
    "query_then_gallery",
    "rank_gallery",
    "score_split",
    "shards",
]
