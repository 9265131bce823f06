"""CurriculumNet: easy images first, where easy means densely surrounded by its own class in feature space.

1. Plain training (`methods/_erm.py`), best epoch; from it the features of all training images, not augmented.
2. For every class separately (`samplers.curriculum_subsets`): D_ij the distances between its images,
   d_c the distance below which `quantile` of all n^2 lie, and density

       rho_i = #{j != i: D_ij < d_c}        (`kernel=gaussian`: sum_j exp(-(D_ij / max D)^2 / 2) / sqrt(2 pi))

   One-dimensional 3-means of rho cuts the class: dense (0), middle (1), sparse (2).
3. Network and head return to their initial weights. Three stages, weights carried over, the optimizer anew in each:
   subset 0; then 0 and 1; then all. With weight omega = 1, 0.5, 0.5 of an image of subset 0, 1, 2,

       loss = sum_i omega_i CE_i / sum_i omega_i    over the batch.

The three stages together spend the budget that every method has: 40, 30 and 30 % of it, at least one epoch each. Of
2 epochs the middle stage is left out, of 1 the first too. Only the last stage stops early, and only its epochs may
be reported. Classes of fewer than 9 images or of fewer than 3 distinct densities are dense as a whole.

"Dense" stands for "clean": the method is made for labels from the web, where a mislabelled image lies away from its
class. On clean labels it means typical images first. Every class is cut alike, so it does not balance anything;
small classes that stay whole gain a little in the first stage.

Defaults: quantile 0.6, 3 subsets, 256 principal components (original code, MalongTech/CurriculumNet 9daeae48);
weights 1, 0.5, 0.5 and the order of the stages (recalled from the paper, whose training code was not released);
the split of the budget, early stopping, the mean by weight and the fresh start after clustering (our reading: what is
learned from all images before the curriculum would defeat it; features alone are taken from the first model).
Differs: k-means is exact instead of drawn at random; classes smaller than 256, on which the original fails, keep all
their features; distances and densities are computed in float64; the original's cluster centres, which no subset
depends on, are left out.
Source: Guo et al., ECCV 2018 (CurriculumNet), section 3; the original's clustering code.
Cost: two trainings, the first shared and charged in full; one pass for features, n^2 distances a class.
Neutral: none, it trains in three further stages
Status: our reading; the clustering is verified against the original code, stage weights and schedule are recalled
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ltbench.methods import hp, register
from ltbench.methods._erm import erm_stage
from ltbench.methods.base import Method, Run
from ltbench.methods.stages import Batch, Progress, Stage, StageResult
from ltbench.samplers import curriculum_subsets
from ltbench.uploads import upload

_STAGES = ("dense", "middle", "all")


@register("curriculumnet")
class CurriculumNet(Method):
    """Plain training, then a curriculum of three stages; hooks used: build, loss, stages."""

    needs = "features"

    image_weights: Tensor

    @dataclass(frozen=True)
    class Config:
        """Of the clustering and of the curriculum."""

        quantile: float = hp(0.6, low=0.01, high=0.99, sweep=(0.4, 0.6, 0.8), source="original code: density_t")
        kernel: Literal["cutoff", "gaussian"] = hp("cutoff", sweep=("cutoff", "gaussian"), source="original code")
        middle_weight: float = hp(0.5, low=1e-3, sweep=(0.5, 1.0), source="recalled from section 3")
        sparse_weight: float = hp(0.5, low=1e-3, sweep=(0.5, 1.0), source="recalled from section 3")
        dense_share: float = hp(0.4, low=0.01, high=0.98, source="our reading: of the epochs, on the dense subset")
        middle_share: float = hp(0.3, low=0.01, high=0.98, source="our reading: of the epochs, on dense and middle")

    @classmethod
    def check(cls, config: Any, class_counts: np.ndarray) -> None:
        """Refuse shares that leave nothing for the stage that is reported."""
        if config.dense_share + config.middle_share >= 1:
            raise ValueError(
                f"dense_share {config.dense_share:g} and middle_share {config.middle_share:g} leave no epoch for the "
                "stage on all images; their sum must be below 1"
            )

    def build(self) -> None:
        """Add the weight of each training image, float32 [N], 1 until the subsets are known.

        Not in the state: a replay sets it from the memo.
        """
        super().build()
        self.register_buffer("image_weights", torch.ones(int(self.task.class_counts.sum())), persistent=False)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the mean of the cross-entropies by image weight."""
        logits = self.classify(self.features(batch.images))
        each = functional.cross_entropy(logits, batch.targets, reduction="none")
        weights = self.image_weights[upload(batch.indices, each.device)]
        return {"loss": (weights * each).sum() / weights.sum()}

    def most_steps(self, run: Run) -> int:
        """Return the steps of plain training and of the curriculum."""
        return 2 * run.steps(run.epochs)

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield plain training, then the curriculum from the initial weights."""
        initial = {name: value.clone() for name, value in self.state_dict().items()}
        yield erm_stage(self, run)
        subsets = np.asarray(run.memo("curriculum", lambda: self._subsets(run))["subsets"], dtype=np.int64)
        self.load_state_dict(initial)
        weights = torch.tensor([1.0, self.config.middle_weight, self.config.sparse_weight], dtype=torch.float64)
        self.image_weights.copy_(weights[torch.from_numpy(subsets)])
        for number, (name, epochs) in enumerate(zip(_STAGES, self._budgets(run.epochs), strict=True)):
            last = name == _STAGES[-1]
            stop = run.early_stopping() if last else None
            if epochs:
                yield Stage(name, epochs, indices=np.flatnonzero(subsets <= number), stop=stop, select=last)

    def _subsets(self, run: Run) -> Mapping[str, Any]:
        """Return the subset of each training image, and how many of each class are in each subset."""
        config, number = self.config, len(_STAGES)
        subsets = curriculum_subsets(run.features(), run.labels, number, config.quantile, kernel=config.kernel)
        classes = len(run.class_counts)
        sizes = [np.bincount(run.labels[subsets == subset], minlength=classes) for subset in range(number)]
        return {"subsets": subsets, "sizes": sizes}

    def _budgets(self, epochs: int) -> tuple[int, int, int]:
        """Return the epochs of the three stages: they sum to `epochs`, and the last is never without one."""
        if epochs < len(_STAGES):
            return epochs - 1, 0, 1
        config = self.config
        second = int(np.clip(round((config.dense_share + config.middle_share) * epochs), 2, epochs - 1))
        first = int(np.clip(round(config.dense_share * epochs), 1, second - 1))
        return first, second - first, epochs - second
