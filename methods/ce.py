"""CE: plain cross-entropy on shuffled images, the baseline that every difference refers to.

Mean of -log softmax(z)_y over the batch; images in random order without replacement; linear head with bias.
No hyper-parameters of its own.
Source: Ju et al., MICCAI 2022 (Flexible Sampling), Table 1, row CE.
Cost: one training.
"""

from __future__ import annotations

from ltbench.methods import register
from ltbench.methods.base import Method


@register("ce")
class CrossEntropy(Method):
    """The base class as it stands."""
