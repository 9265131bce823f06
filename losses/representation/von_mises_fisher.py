"""Contrast with whole classes, each a von Mises-Fisher distribution on the sphere (ProCo, Du et al., TPAMI 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ltbench.losses._class_loss import checked_number
from ltbench.losses.logit_adjustment import LogitAdjustedLoss

_SMALLEST_DIMENSION = 32  # below it the expansion loses digits
_LARGEST_CONCENTRATION = 1e5


def scaled_log_bessel(order: float, x: Tensor) -> Tensor:
    """Return A(x) = log I_order(x) - order log x, by the uniform expansion of the modified Bessel function.

    With s = sqrt(1 + (x / order)^2) and p = 1 / s, in float64,

        log I(x) = order (s + log(x / order / (1 + s))) - log(2 pi order s) / 2 + log(1 + u1 / order + u2 / order^2)
        u1 = (3 p - 5 p^3) / 24,   u2 = (81 p^2 - 462 p^4 + 385 p^6) / 1152

    whose error is at most 5e-6 at order 15, 7e-8 at 63 and 2e-10 at 511, for all x. The logarithms of x cancel: A(0) is
    finite. A'(x) = I_{order + 1}(x) / I_order(x) lies in (0, 1) for x > 0.

    Parameters
    ----------
    order : at least 15
    x : at least 0, any shape

    Returns
    -------
    float64, the shape of x
    """
    root = torch.sqrt(1 + (x.double() / order) ** 2)
    inverse = 1 / root
    square = inverse**2
    first = inverse * (3 - 5 * square) / 24
    second = square * (81 - 462 * square + 385 * square**2) / 1152
    leading = order * (root - torch.log1p(root) - math.log(order))
    return leading - 0.5 * (math.log(2 * math.pi * order) + root.log()) + torch.log1p(first / order + second / order**2)


class ProbabilisticContrastiveLoss(nn.Module):
    """Contrast of each vector with infinitely many of every class, in closed form, with class shares added.

    From the mean m_c of a class's unit vectors: R_c = |m_c|, mu_c = m_c / R_c, kappa_c = d R_c / (1 - R_c^2), but
    1e5 where it would be above that or negative. With A of `scaled_log_bessel` at order d / 2 - 1,

        l_ic = A(|kappa_c mu_c + u_i / tau|) - A(kappa_c) = log E[exp(u_i . v / tau)],  v of class c's distribution

    and the loss is the mean of CE(l + log pi, y), pi the shares of the classes.

    Parameters
    ----------
    class_counts : [K], training images of each class by class id, at least 1
    temperature : tau, above 0

    Raises
    ------
    ValueError : a count below 1, counts that are not one-dimensional, a temperature that is not above 0
    """

    def __init__(self, class_counts: Sequence[int] | np.ndarray | Tensor, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = checked_number("temperature", temperature, positive=True)
        self.adjusted = LogitAdjustedLoss(class_counts)

    def logits(self, vectors: Tensor, means: Tensor) -> Tensor:
        """Return l, computed in float64, in the vectors' type, float32 at least: [B, K].

        Parameters
        ----------
        vectors : u, float [B, d], of length 1, d at least 32
        means : m, float [K, d], of length at most 1; they carry no gradient

        Raises
        ------
        ValueError : shapes that do not fit, or d below 32
        """
        shapes = tuple(vectors.shape), tuple(means.shape)
        if vectors.ndim != 2 or means.ndim != 2 or shapes[0][1] != shapes[1][1] or shapes[0][1] < _SMALLEST_DIMENSION:
            wanted = f"[B, d] and [K, d], d at least {_SMALLEST_DIMENSION}"
            raise ValueError(f"vectors and means must be {wanted}, got {shapes[0]} and {shapes[1]}")
        with torch.autocast(vectors.device.type, enabled=False):
            values = self._logits(vectors.double(), means.detach().double())
        return values.to(torch.promote_types(vectors.dtype, torch.float32))

    def _logits(self, vectors: Tensor, means: Tensor) -> Tensor:
        dimension = means.shape[1]
        length = torch.linalg.vector_norm(means, dim=1)
        kappa = dimension * length / (1 - length**2)
        kappa = torch.where((kappa > _LARGEST_CONCENTRATION) | (kappa < 0), _LARGEST_CONCENTRATION, kappa)
        centres = (kappa / length.clamp(min=1e-30)).unsqueeze(1) * means
        scaled = vectors / self.temperature
        square = kappa**2 + scaled.square().sum(dim=1, keepdim=True) + 2 * scaled @ centres.T
        order = dimension / 2 - 1
        # Where both vectors cancel the root would have no finite gradient.
        return scaled_log_bessel(order, square.clamp(min=1e-20).sqrt()) - scaled_log_bessel(order, kappa)

    def forward(self, vectors: Tensor, targets: Tensor, means: Tensor) -> Tensor:
        """Return the mean over the batch: a scalar of the vectors' type, float32 at least.

        Parameters
        ----------
        vectors, means : as for `logits`
        targets : int64 [B], class ids in [0, K)
        """
        return self.adjusted(self.logits(vectors, means), targets)
