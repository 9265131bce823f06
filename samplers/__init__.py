"""Samplers and selection rules on arrays: class counts, features, probabilities in; indices out."""

from ltbench.samplers.acquisition import (
    class_difficulty,
    mutual_information,
    query_quotas,
    select_queries,
)
from ltbench.samplers.class_balanced import class_aware_stream, reweighted_stream, shuffled_stream
from ltbench.samplers.curriculum import curriculum_subsets, kmeans_1d
from ltbench.samplers.density import local_density
from ltbench.samplers.prototypes import anchor_counts, class_prototypes, nearest_prototype, select_anchors

__all__ = [
    "anchor_counts",
    "class_aware_stream",
    "class_difficulty",
    "class_prototypes",
    "curriculum_subsets",
    "kmeans_1d",
    "local_density",
    "mutual_information",
    "nearest_prototype",
    "query_quotas",
    "reweighted_stream",
    "select_anchors",
    "select_queries",
    "shuffled_stream",
]
