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
from ltbench.losses.focal import FocalLoss
from ltbench.losses.info_nce import InfoNCELoss
from ltbench.losses.lade import LADELoss
from ltbench.losses.logit_adjustment import BalancedSoftmaxLoss, LogitAdjustedLoss, VSLoss
from ltbench.losses.margin import LDAMLoss

__all__ = [
    "BalancedSoftmaxLoss",
    "CentroidLoss",
    "ClassBalancedLoss",
    "EarlyExitLoss",
    "FocalLoss",
    "InfoNCELoss",
    "LADELoss",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "VSLoss",
    "effective_number_weights",
    "inference_exits",
    "inverse_frequency_weights",
    "logarithmic_weights",
    "power_weights",
    "square_root_weights",
    "training_exits",
]
