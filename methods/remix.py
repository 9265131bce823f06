"""REMIX: mixup whose label goes to the rarer of two classes where they differ much in frequency.

    x' = l x_i + (1 - l) x_j,   loss = v L(z, y_i) + (1 - v) L(z, y_j)

- `rule=remix` (default): l ~ Beta(alpha, alpha), one a batch, pairs by a random permutation of it. v of each pair is 0
  where n_i / n_j >= kappa and l < tau, 1 where n_i / n_j <= 1 / kappa and 1 - l < tau, else l: a label goes wholly to
  the rarer class, never to the more frequent one.
- `rule=unimix`: j is drawn within the batch with P(j) proportional to n_{y_j} ** exponent, with replacement, and each
  pair has its own v = l = b + n_j / (n_i + n_j), less 1 where that is above 1, b ~ Beta(unimix_alpha, unimix_alpha).
  With equal counts and unimix_alpha 1, l is uniform.

`objective` L: by default the rule's own, plain cross-entropy for remix, and for unimix that of z + log pi, which is
`balanced_softmax`. Where L has class weights (ldam_drw) they act inside it. Counts are by class id.

Defaults: kappa 3, tau 0.5, alpha 1 (BagofTricks-LT ce7859a9); exponent -0.5, unimix_alpha 0.8 (XuZhengzhuo/Prior-LT
5f2298c9). alpha = 0 mixes nothing, a huge kappa is `mixup`.
Differs: Remix is published with deferred re-weighting, too: objective=ldam_drw is the nearest to that here.
Pitfalls: mixed images are learned more slowly. One trial on made-up images at ratio 20: 33 % after 6 epochs, mixup 30 %
and ce 36 %; 56 % after 12 epochs, mixup 56 % and ce 54 %.
Source: Chou et al., ECCV Workshops 2020 (Remix); Xu et al., NeurIPS 2021 (UniMix, section 3.2, and Bayias, 3.3); not in
the tables of Ju et al., MICCAI 2022.
Cost: one training.
Neutral: alpha=0
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ltbench.methods import hp, register
from ltbench.methods._objective import OBJECTIVES, MixedBatch, ObjectiveMethod
from ltbench.methods.stages import Batch
from ltbench.uploads import upload


def remix_shares(counts: Tensor, other_counts: Tensor, share: float, kappa: float = 3.0, tau: float = 0.5) -> Tensor:
    """Return v, the share of the first label, of each pair.

    Parameters
    ----------
    counts, other_counts : float [B], training images of the first and of the second image's class
    share : l of the first image

    Returns
    -------
    [B], of the counts' type
    """
    ratio = counts / other_counts
    given = torch.full_like(ratio, share)
    if 1 - share < tau:
        given = torch.where(ratio <= 1 / kappa, 1.0, given)
    return torch.where(ratio >= kappa, 0.0, given) if share < tau else given


def unimix_shares(counts: Tensor, other_counts: Tensor, draws: Tensor) -> Tensor:
    """Return l of each pair: draws shifted by the other class's part of both counts, modulo 1.

    Parameters
    ----------
    counts, other_counts : float [B]
    draws : b, float [B] in [0, 1]
    """
    shifted = draws + other_counts / (counts + other_counts)
    return torch.where(shifted > 1, shifted - 1, shifted)


@register("remix")
class Remix(ObjectiveMethod):
    """Overrides the batch transform."""

    counts: Tensor

    @dataclass(frozen=True)
    class Config:
        """How images and labels are mixed, and the loss that is mixed."""

        rule: Literal["remix", "unimix"] = hp("remix", sweep=("remix", "unimix"), source="Chou 2020; Xu 2021")
        alpha: float = hp(1.0, low=0.0, sweep=(0.2, 0.4, 1.0), source="BagofTricks-LT code; rule=remix only")
        kappa: float = hp(3.0, low=1.0, sweep=(2.0, 3.0, 5.0), source="BagofTricks-LT code; rule=remix only")
        tau: float = hp(0.5, low=0.0, high=1.0, sweep=(0.3, 0.5), source="BagofTricks-LT code; rule=remix only")
        exponent: float = hp(-0.5, low=-2.0, high=2.0, sweep=(-1.0, -0.5, 0.0), source="Prior-LT code; unimix only")
        unimix_alpha: float = hp(0.8, low=1e-3, sweep=(0.5, 0.8, 1.0), source="Prior-LT code; rule=unimix only")
        objective: Literal["of_rule", "ce", "balanced_softmax", "ldam_drw"] = hp(
            "of_rule", sweep=("of_rule", *OBJECTIVES), source="ce for remix, z + log pi for unimix"
        )

    @property
    def objective(self) -> str:
        """The rule's own objective, or the one that was chosen."""
        own = {"remix": "ce", "unimix": "balanced_softmax"}[self.config.rule]
        return own if self.config.objective == "of_rule" else self.config.objective

    def build(self) -> None:
        """Keep the class counts beside the head."""
        super().build()
        self.register_buffer("counts", torch.from_numpy(self.task.class_counts).float())

    def transform(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Return the mixed batch."""
        return self._unimix(batch, rng) if self.config.rule == "unimix" else self._remix(batch, rng)

    def _remix(self, batch: Batch, rng: np.random.Generator) -> Batch:
        config = self.config
        if config.alpha == 0:
            return batch
        share = rng.beta(config.alpha, config.alpha)
        other = upload(rng.permutation(len(batch.targets)), batch.targets.device)
        targets = batch.targets[other]
        shares = remix_shares(self.counts[batch.targets], self.counts[targets], share, config.kappa, config.tau)
        views = tuple(share * view + (1 - share) * view[other] for view in batch.views)
        return batch.extended(MixedBatch, views=views, others=targets, share=shares)

    def _unimix(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Draw partners by the inverse of their distribution function, on the device, where the class ids are."""
        config, size, device = self.config, len(batch.targets), batch.targets.device
        uniform = upload(rng.random(size).astype(np.float32), device)
        draws = upload(rng.beta(config.unimix_alpha, config.unimix_alpha, size).astype(np.float32), device)
        counts = self.counts[batch.targets]
        reached = (counts**config.exponent).cumsum(0)
        other = torch.searchsorted(reached, uniform * reached[-1], right=True).clamp(max=size - 1)
        share = unimix_shares(counts, counts[other], draws)
        weight = share.view(-1, 1, 1, 1)
        views = tuple((weight * view + (1 - weight) * view[other]).to(view.dtype) for view in batch.views)
        return batch.extended(MixedBatch, views=views, others=batch.targets[other], share=share)
