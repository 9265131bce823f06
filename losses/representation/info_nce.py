"""InfoNCE: find the other view of an image among other images (van den Oord et al., arXiv:1807.03748)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class InfoNCELoss(nn.Module):
    """Contrastive loss, eq. 1 of the Flexible Sampling paper, on L2-normalised vectors.

    Without `negatives` it is symmetric: each of the 2B views is distinguished from the 2B - 2 views of other images (30
    negatives at a batch of 16). With `negatives` (a queue of keys), `first` holds queries and `second` their
    keys: each query is distinguished from the B - 1 other keys and from the queue, and keys carry no gradient.

    Parameters
    ----------
    temperature : T of eq. 1, above 0

    Raises
    ------
    ValueError : temperature not above 0
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature

    def forward(
        self,
        first: Tensor,
        second: Tensor,
        negatives: Tensor | None = None,
        *,
        negative_weight: float = 1.0,
        excluded: Tensor | None = None,
        positives: Tensor | None = None,
    ) -> Tensor:
        """Return the mean loss over all queries.

        A query with further positives has the mean of -log softmax over its own key and these.

        Parameters
        ----------
        first, second : float [B, D], two views of the same B images, row by row
        negatives : float [Q, D], further keys
        negative_weight : how many negatives each one stands for, above 0; with `negatives` only
        excluded : bool [B, Q], which of the further keys show the query's own image and do not count
        positives : bool [B, Q], which of the further keys are positives; none of the excluded ones
        """
        # Similarities are divided by a small temperature: in bfloat16 they would keep two digits.
        with torch.autocast(first.device.type, enabled=False):
            return self._loss(first, second, negatives, negative_weight, excluded, positives)

    def _loss(
        self,
        first: Tensor,
        second: Tensor,
        negatives: Tensor | None,
        weight: float,
        excluded: Tensor | None,
        positives: Tensor | None,
    ) -> Tensor:
        if first.shape != second.shape or first.ndim != 2:
            raise ValueError(f"views must be two equal [B, D], got {tuple(first.shape)} and {tuple(second.shape)}")
        first, second = functional.normalize(first, dim=1), functional.normalize(second, dim=1)
        rows = torch.arange(len(first), device=first.device)
        if negatives is None:
            views = torch.cat([first, second])
            similarity = views @ views.T / self.temperature
            similarity.fill_diagonal_(-torch.inf)
            return functional.cross_entropy(similarity, torch.cat([rows + len(first), rows]))
        keys = torch.cat([second, functional.normalize(negatives, dim=1)]).detach()
        similarity = first @ keys.T / self.temperature
        # A factor on every negative's exponential is the inverse factor on the positive's.
        similarity[rows, rows] -= math.log(weight)
        if excluded is not None:
            similarity[:, len(first) :].masked_fill_(excluded, -torch.inf)
        if positives is None:
            return functional.cross_entropy(similarity, rows)
        logarithms = similarity.log_softmax(dim=1)
        others = torch.where(positives, logarithms[:, len(first) :] - math.log(weight), 0.0).sum(dim=1)
        return -((logarithms.diagonal() + others) / (1 + positives.sum(dim=1))).mean()
