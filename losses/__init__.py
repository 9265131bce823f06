"""Pure losses: tensors in, a scalar out, no configuration objects, no schedule."""

from ltbench.losses.centroid import CentroidLoss
from ltbench.losses.class_balanced import ClassBalancedLoss
from ltbench.losses.class_weights import (
    effective_number_weights,
    inverse_frequency_weights,
    logarithmic_weights,
    power_weights,
    square_root_weights,
)
from ltbench.losses.early_exit import EarlyExitLoss, inference_exits, training_exits
from ltbench.losses.feature_distance import CenterLoss, RangeLoss
from ltbench.losses.focal import FocalLoss
from ltbench.losses.info_nce import InfoNCELoss
from ltbench.losses.logit_adjustment import BalancedSoftmaxLoss, LADELoss, LogitAdjustedLoss, VSLoss
from ltbench.losses.margin import LDAMLoss
from ltbench.losses.random_logits import GCLLoss, SEQLLoss
from ltbench.losses.redundancy import BarlowTwinsLoss
from ltbench.losses.sharpness_aware import SharpnessAware

__all__ = [
    "BalancedSoftmaxLoss",
    "BarlowTwinsLoss",
    "CenterLoss",
    "CentroidLoss",
    "ClassBalancedLoss",
    "EarlyExitLoss",
    "FocalLoss",
    "GCLLoss",
    "InfoNCELoss",
    "LADELoss",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "RangeLoss",
    "SEQLLoss",
    "SharpnessAware",
    "VSLoss",
    "effective_number_weights",
    "inference_exits",
    "inverse_frequency_weights",
    "logarithmic_weights",
    "power_weights",
    "square_root_weights",
    "training_exits",
]
