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
    all_tests,
    describe_unseen,
    images_to_score,
    mean_and_deviation,
    mean_scores,
    multi_query_images,
    rank_gallery,
    require_tests,
    score_split,
)

__all__ = [
    "EvalShard",
    "ExtractedFeatures",
    "Scoring",
    "all_tests",
    "describe_unseen",
    "extract_features",
    "extract_parts",
    "images_to_score",
    "mean_and_deviation",
    "mean_scores",
    "multi_query_images",
    "query_then_gallery",
    "rank_gallery",
    "require_tests",
    "score_split",
    "shards",
]
