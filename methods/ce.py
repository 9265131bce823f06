"""CE: plain cross-entropy on shuffled images, the baseline that every difference refers to.

Mean of -log softmax(z)_y over the batch; images in random order without replacement; linear head with bias. Its
training is also the first stage of the two-stage methods, and is computed once for all of them (`methods/_erm.py`).
No hyper-parameters of its own.
Source: Ju et al., MICCAI 2022 (Flexible Sampling), Table 1, row CE.
Cost: one training.
Neutral: none, it is the baseline itself
Status: from the paper
"""

from __future__ import annotations

from collections.abc import Generator

from ltbench.methods import register
from ltbench.methods._erm import erm_stage
from ltbench.methods.base import Method, Run
from ltbench.methods.stages import Stage, StageResult


@register("ce")
class CrossEntropy(Method):
    """The base class, with its one stage under the name by which other methods find it."""

    needs = "features"

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield the shared plain training."""
        yield erm_stage(self, run, select=True)
