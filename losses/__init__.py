"""Pure losses: tensors in, a scalar out, no configuration objects, no schedule."""

from ltbench.losses.class_weights import effective_number_weights, inverse_frequency_weights, square_root_weights
from ltbench.losses.info_nce import InfoNCELoss

__all__ = [
    "InfoNCELoss",
    "effective_number_weights",
    "inverse_frequency_weights",
    "square_root_weights",
]
