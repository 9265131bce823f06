"""OLTR: a memory of class centroids lends to each feature, so that rare classes borrow from frequent ones.

1. Plain training (`methods/_erm.py`), best epoch.
2. `memory`: modulated attention goes into the backbone, before its pooling, and a memory head on top; centroids M
   start as the class means of v over the training set. All but the first stage's head are trained together on
   class-aware batches. With x the last map, p and q its positions, f the pooled feature:

    x'     = x + s mask(o),  o_p = sum_q A_pq g(x)_q,  A = softmax_q(theta(x)_p . phi(x)_q),  s a softmax over positions
    v      = ReLU(W_add f)                                   direct feature, d numbers
    v_mem  = softmax(W_h v) M,   e = tanh(W_e v)              hallucinated from the memory; how much of it to take
    u      = gamma (v + e v_mem),   gamma = reachability / min_k |v - M_k|
    logits = scale u / (1 + |u|) . w_k / |w_k|                w_k the classifier's rows
    loss   = CE(logits) + feature_weight (1 / 2B sum |v - M_y|^2
             + repel_weight clamp(repel_margin - 1 / BK sum_{k != y} |v - M_k|^2, 0))

The head reads M as constants; only the centroid loss moves it, by a rule of its own
(`losses/representation/centroid.py`) that `feature_weight` does not reach. W_h starts as the first stage's classifier,
mask at 0, so that x' = x at first.

Defaults: feature_weight and repel_weight 0.01, repel_margin 10, reachability 10, scale 16, 4 images a turn, all of the
original code (zhmiao/OpenLongTailRecognition-OLTR f50e375f). The paper, recalled, has margin 5 and weight 0.1.
Differs: the original takes SGD with a step schedule and three learning rates, here all is the protocol's Adam at one
rate. d is the width of the backbone (512 for ResNet-18, as there), so that W_h can be copied for every backbone. The
original's gate s knows only 7 x 7 maps (224 pixels); here its grid is the map at the task's image size, at most 7 x 7,
and larger maps are averaged over its cells. Centroids have no weight decay, which would shrink the memory.
Pitfalls: gamma is infinite where a feature is a centroid, as for a class of one image at the start: the distance is
at least 1e-6 here. The repel term is off once the mean squared distance is above its margin.
Source: Liu et al., CVPR 2019 (OLTR), section 3; Ju et al., MICCAI 2022, Table 1, row OLTR.
Cost: two trainings, the first shared and charged in full, and a pass over the training set for its class means.
Neutral: none, its second stage trains further
Status: verified against the original code; one Adam for all parts, d = num_features and gates beyond 7 x 7 are ours
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ltbench.errors import UserError
from ltbench.losses import CentroidLoss
from ltbench.methods import hp, register
from ltbench.methods._erm import erm_stage
from ltbench.methods.base import Method, Run, feature_width, full_precision
from ltbench.methods.stages import Batch, Pool, Progress, Stage, StageResult
from ltbench.samplers import class_aware_stream, class_prototypes

_LARGEST_GRID = 7  # the original's
_SMALLEST_DISTANCE = 1e-6


class ModulatedAttention(nn.Module):
    """Self-attention over the positions of a map, gated by position; it changes nothing until it has learned.

    Runs in full precision, also under autocast: what it adds is small against the map.

    Parameters
    ----------
    channels : C of the maps
    grid : (height, width) of the gate; a map of that size is gated position by position, any other is averaged over
        the grid's cells (as adaptive pooling has them), and the gate of a cell is shared evenly by its positions
    """

    def __init__(self, channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.grid = grid
        self.query, self.key, self.value = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        for layer in (self.query, self.key, self.value):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.constant_(layer.get_parameter("bias"), 0.0)
        self.mask = nn.Conv2d(inner, channels, 1, bias=False)
        nn.init.zeros_(self.mask.weight)
        cells = grid[0] * grid[1]
        self.gate = nn.Linear(cells * channels, cells)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps with what they attend to added: [B, C, H, W] to the same, at least float32."""
        with torch.autocast(maps.device.type, enabled=False):
            maps = full_precision(maps)
            return maps + self.spatial_gate(maps) * self.mask(self.attended(maps))

    def attended(self, maps: Tensor) -> Tensor:
        """Return what each position takes from all others: [B, C, H, W] to [B, C // 2, H, W]."""
        query, key, value = (layer(maps).flatten(2) for layer in (self.query, self.key, self.value))
        attention = (query.transpose(1, 2) @ key).softmax(dim=2)
        return (value @ attention.transpose(1, 2)).unflatten(2, maps.shape[2:])

    def spatial_gate(self, maps: Tensor) -> Tensor:
        """Return the weight of each position: [B, C, H, W] to [B, 1, H, W], summing to 1 over positions."""
        size = tuple(maps.shape[2:])
        if size == self.grid:
            return self.gate(maps.flatten(1)).softmax(dim=1).view(-1, 1, *size)
        # Products, not pooling layers: their gradient is deterministic on a GPU. The transposed average hands each
        # cell's weight to its positions, so the sum stays 1.
        rows, columns = (_averages(*pair, like=maps) for pair in zip(self.grid, size, strict=True))
        cells = self.gate((rows @ maps @ columns.T).flatten(1)).softmax(dim=1)
        return rows.T @ cells.view(-1, 1, *self.grid) @ columns


class CosNorm(nn.Module):
    """Cosine classifier on squashed features: scale * (u / (1 + |u|)) . (w_k / |w_k|), no bias; |logit| <= scale.

    Parameters
    ----------
    dimension, num_classes : D and K
    scale : above 0
    """

    def __init__(self, dimension: int, num_classes: int, scale: float = 16.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_classes, dimension))
        bound = 1 / math.sqrt(dimension)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits: [B, D] to [B, K], at least float32."""
        with torch.autocast(features.device.type, enabled=False):
            features = full_precision(features)
            squashed = features / (1 + torch.linalg.vector_norm(features, dim=1, keepdim=True))
            return self.scale * squashed @ functional.normalize(self.weight, dim=1).T


class MetaEmbedding(nn.Module):
    """The memory head: direct features, enriched from centroids, scaled by how near a known class is, to logits.

    Parameters
    ----------
    dimension, num_classes : d and K
    reachability : numerator of gamma, above 0
    scale : of the classifier
    """

    def __init__(self, dimension: int, num_classes: int, *, reachability: float = 10.0, scale: float = 16.0) -> None:
        super().__init__()
        self.reachability = reachability
        self.hallucinator = nn.Linear(dimension, num_classes)
        self.selector = nn.Linear(dimension, dimension)
        self.classifier = CosNorm(dimension, num_classes, scale)

    def forward(self, features: Tensor, centroids: Tensor) -> Tensor:
        """Return logits [B, K], at least float32, of features [B, d] and centroids [K, d]; these get no gradient."""
        with torch.autocast(features.device.type, enabled=False):
            return self.classifier(self.embed(full_precision(features), centroids.detach()))

    def embed(self, features: Tensor, centroids: Tensor) -> Tensor:
        """Return u = gamma (v + e v_mem): [B, d]."""
        memory = self.hallucinator(features).softmax(dim=1) @ centroids
        selected = self.selector(features).tanh()
        return self.gamma(features, centroids) * (features + selected * memory)

    def gamma(self, features: Tensor, centroids: Tensor) -> Tensor:
        """Return reachability / distance to the nearest centroid, differentiable in the features: [B, 1].

        As large as reachability / 1e-6 on a centroid: the classifier squashes it, so that logits and gradients stay
        finite.
        """
        with torch.no_grad():
            distances = torch.cdist(features, centroids, compute_mode="donot_use_mm_for_euclid_dist")
            nearest = centroids[distances.argmin(dim=1)]
        distance = torch.linalg.vector_norm(features - nearest, dim=1, keepdim=True)
        return self.reachability / distance.clamp_min(_SMALLEST_DISTANCE)


@register("oltr")
class OpenLongTailRecognition(Method):
    """Two stages; hooks used: build, stages, features, classify, loss, param_groups."""

    needs = "stages"

    @dataclass(frozen=True)
    class Config:
        """The released code's values."""

        feature_weight: float = hp(0.01, low=0.0, sweep=(0.001, 0.01, 0.1), source="OLTR code; paper, recalled: 0.1")
        repel_weight: float = hp(0.01, low=0.0, source="OLTR code")
        repel_margin: float = hp(10.0, low=0.0, sweep=(5.0, 10.0), source="OLTR code; paper, recalled: 5")
        reachability: float = hp(10.0, low=1e-3, source="OLTR code")
        scale: float = hp(16.0, low=1e-3, sweep=(8.0, 16.0, 32.0), source="OLTR code")
        images_per_class: int = hp(4, low=1, sweep=(1, 4), source="OLTR code")

    def build(self) -> None:
        """Put attention, a layer for the direct feature, memory head and centroids beside the linear head."""
        super().build()
        channels, grid = _map_size(self.backbone, self.task.image_size)
        width, classes, config = feature_width(self.backbone), self.task.num_classes, self.config
        self.attention = ModulatedAttention(channels, grid)
        self.fc_add = nn.Linear(width, width)
        self.memory = MetaEmbedding(width, classes, reachability=config.reachability, scale=config.scale)
        self.centroids = nn.Parameter(torch.zeros(classes, width))
        self.centroid_loss = CentroidLoss(config.repel_weight, config.repel_margin)

    def features(self, images: Tensor) -> Tensor:
        """Return direct features v: [B, 3, H, W] to [B, d], at least float32."""
        maps = self.attention(self.backbone.forward_features(images))
        pooled = self.backbone.forward_head(maps, pre_logits=True)
        with torch.autocast(images.device.type, enabled=False):
            return self.fc_add(full_precision(pooled)).relu()

    def classify(self, features: Tensor) -> Tensor:
        """Return the memory head's logits [B, K] of direct features [B, d]; at least float32, also under autocast."""
        return self.memory(features, self.centroids)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the second stage's loss and its two parts."""
        features = self.features(batch.images)
        classification = functional.cross_entropy(self.classify(features), batch.targets)
        centroid = self.centroid_loss(features, batch.targets, self.centroids)
        total = classification + self.config.feature_weight * centroid
        return {"loss": total, "classification": classification, "centroid": centroid}

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return all but the first stage's head; centroids separately, without weight decay."""
        rest = [
            parameter
            for name, parameter in self.named_parameters()
            if name != "centroids" and not name.startswith("head.")
        ]
        return [{"params": rest, "lr": lr}, {"params": [self.centroids], "lr": lr, "weight_decay": 0.0}]

    def most_steps(self, run: Run) -> int:
        """Return the steps of both stages."""
        return 2 * run.steps(run.epochs)

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield plain training, then memory and backbone together."""
        yield erm_stage(self, run)
        self.memory.hallucinator.load_state_dict(self.head.state_dict())
        means = run.memo("centroids", lambda: self._class_means(run), story=False)
        with torch.no_grad():
            self.centroids.copy_(torch.tensor(means))
        yield Stage("memory", run.epochs, sampler=self._class_aware, stop=run.early_stopping())

    def _class_means(self, run: Run) -> np.ndarray:
        means = class_prototypes(run.features(), run.labels, self.task.num_classes)
        return means.astype(np.float32)  # what the parameter holds

    def _class_aware(self, pool: Pool, progress: Progress, rng: np.random.Generator) -> np.ndarray:
        return class_aware_stream(pool.labels, self.config.images_per_class, pool.length, rng)


def _map_size(backbone: Any, image_size: int) -> tuple[int, tuple[int, int]]:
    """Return channels of the backbone's last map and the gate's grid; the backbone stays as it was.

    Raises
    ------
    UserError : a backbone without maps [B, C, H, W], or that takes no images of this size
    """
    advice = "choose a convolutional --backbone such as resnet18"
    if not (hasattr(backbone, "forward_features") and hasattr(backbone, "forward_head")):
        raise UserError(f"oltr needs a timm backbone with forward_features and forward_head; {advice}")
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()  # or BatchNorm would take the zeros for data
    try:
        with torch.no_grad():
            maps = backbone.forward_features(torch.zeros(1, 3, image_size, image_size))
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"oltr: this backbone takes no images of {image_size} pixels ({reason}); {advice}") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if maps.ndim != 4 or getattr(backbone, "output_fmt", "NCHW") != "NCHW":
        raise UserError(f"oltr needs feature maps [B, C, H, W], this backbone gives {tuple(maps.shape)}; {advice}")
    height, width = maps.shape[2:]
    return maps.shape[1], (min(height, _LARGEST_GRID), min(width, _LARGEST_GRID))


def _averages(cells: int, positions: int, *, like: Tensor) -> Tensor:
    """Return the matrix [cells, positions] that averages over each cell, cells as adaptive pooling has them."""
    cell = torch.arange(cells, device=like.device).unsqueeze(1)
    position = torch.arange(positions, device=like.device)
    first, end = cell * positions // cells, ((cell + 1) * positions + cells - 1) // cells
    inside = ((first <= position) & (position < end)).to(like.dtype)
    return inside / inside.sum(dim=1, keepdim=True)
