"""NCM: nearest class mean, features of plain training compared with the means of their classes.

    z_c = -|g - m_c| ** 2,   g = (f - mean) / |f - mean|,   m_c = mean of g over the training images of class c

Means do not know how frequent a class is, so that the tail is not outweighed as by a linear head.

1. Plain training (`methods/_erm.py`), best epoch.
2. Nothing is trained: class means of un-augmented training images (`centre` is the mean feature of all of them).

Defaults: `feature_type` cl2n (centred by the mean of all training images, then of unit length) and `metric` l2, those
of the original code (facebookresearch/classifier-balancing f162adef, `--knn`). The means are not normalised again;
`metric` cos divides the product by D and not by lengths, as there. A re-implementation (MONICA 9dc5c21f) takes the
features of augmented, re-sampled images.
Pitfalls: logits are distances of unit vectors, between -4 and 0, so that their softmax is almost flat: accuracy means
something, calibration and confidence do not.
Source: Kang et al., ICLR 2020 (Decoupling), section 4.3; not in the tables of Ju et al., MICCAI 2022.
Cost: one training, shared and charged in full, and a pass over the training set.
Neutral: none, it replaces the classifier
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ltbench.losses import class_centroids, nearest_class_mean_scores
from ltbench.methods import hp, register
from ltbench.methods._erm import erm_stage
from ltbench.methods.base import Method, Run, feature_width
from ltbench.methods.stages import Stage, StageResult


@register("ncm")
class NearestClassMean(Method):
    """Class means after training; hooks used: build, classify, stages."""

    needs = "features"

    centroids: Tensor
    centre: Tensor

    @dataclass(frozen=True)
    class Config:
        """What is compared, and how."""

        feature_type: Literal["un", "l2n", "cl2n"] = hp("cl2n", sweep=("un", "l2n", "cl2n"), source="Decoupling code")
        metric: Literal["l2", "cos"] = hp("l2", sweep=("l2", "cos"), source="Decoupling code")

    def build(self) -> None:
        """Add class means, float32 [K, D], and the mean feature, float32 [D], to the linear head."""
        super().build()
        width = feature_width(self.backbone)
        self.register_buffer("centroids", torch.zeros(self.task.num_classes, width))
        self.register_buffer("centre", torch.zeros(width))

    def classify(self, features: Tensor) -> Tensor:
        """Return scores [B, K], at least float32; higher is nearer."""
        config = self.config
        return nearest_class_mean_scores(features, self.centroids, self.centre, config.feature_type, config.metric)

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield plain training, then its class means."""
        yield erm_stage(self, run)
        means = run.memo("means", lambda: self._means(run), story=False)
        self.centroids.copy_(torch.tensor(means["centroids"]))
        self.centre.copy_(torch.tensor(means["centre"]))
        yield Stage("means", 0)

    def _means(self, run: Run) -> dict[str, Any]:
        features, labels = torch.from_numpy(run.features()).double(), torch.from_numpy(run.labels)
        centroids, centre = class_centroids(features, labels, self.task.num_classes, self.config.feature_type)
        return {"centroids": centroids.tolist(), "centre": centre.tolist()}
