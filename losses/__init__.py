"""Pure losses: tensors in, a scalar out, no configuration objects, no schedule."""

from ltbench.losses.class_balanced import ClassBalancedLoss
from ltbench.losses.class_weights import (
    effective_number_weights,
    inverse_frequency_weights,
    logarithmic_weights,
    power_weights,
    square_root_weights,
)
from ltbench.losses.classifiers import (
    CausalNormClassifier,
    DisAlignHead,
    class_centroids,
    max_norm_projection,
    nearest_class_mean_scores,
)
from ltbench.losses.early_exit import EarlyExitLoss, inference_exits, training_exits
from ltbench.losses.experts import NestedCollaborativeLoss, RIDELoss, SADELoss
from ltbench.losses.focal import FocalLoss
from ltbench.losses.label_smoothing import LabelAwareSmoothingLoss
from ltbench.losses.logit_adjustment import BalancedSoftmaxLoss, LADELoss, LogitAdjustedLoss, VSLoss
from ltbench.losses.margin import LDAMLoss
from ltbench.losses.random_logits import GCLLoss, SEQLLoss
from ltbench.losses.representation.centroid import CentroidLoss
from ltbench.losses.representation.contrastive import (
    BalancedContrastiveLoss,
    ClassEnhancementLoss,
    ParametricContrastiveLoss,
)
from ltbench.losses.representation.feature_distance import CenterLoss, RangeLoss
from ltbench.losses.representation.info_nce import InfoNCELoss
from ltbench.losses.representation.redundancy import BarlowTwinsLoss
from ltbench.losses.representation.von_mises_fisher import ProbabilisticContrastiveLoss
from ltbench.losses.sharpness_aware import SharpnessAware

__all__ = [
    "BalancedContrastiveLoss",
    "BalancedSoftmaxLoss",
    "BarlowTwinsLoss",
    "CausalNormClassifier",
    "CenterLoss",
    "CentroidLoss",
    "ClassBalancedLoss",
    "ClassEnhancementLoss",
    "DisAlignHead",
    "EarlyExitLoss",
    "FocalLoss",
    "GCLLoss",
    "InfoNCELoss",
    "LADELoss",
    "LDAMLoss",
    "LabelAwareSmoothingLoss",
    "LogitAdjustedLoss",
    "NestedCollaborativeLoss",
    "ParametricContrastiveLoss",
    "ProbabilisticContrastiveLoss",
    "RIDELoss",
    "RangeLoss",
    "SADELoss",
    "SEQLLoss",
    "SharpnessAware",
    "VSLoss",
    "class_centroids",
    "effective_number_weights",
    "inference_exits",
    "inverse_frequency_weights",
    "logarithmic_weights",
    "max_norm_projection",
    "nearest_class_mean_scores",
    "power_weights",
    "square_root_weights",
    "training_exits",
]
