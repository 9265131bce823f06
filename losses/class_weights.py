"""Class weights from class counts, indexed by class id; normalised to sum to the number of classes but for one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def inverse_frequency_weights(class_counts: Sequence[int] | np.ndarray | Tensor) -> Tensor:
    """Return weights proportional to 1 / n_c.

    Parameters
    ----------
    class_counts : [K], training images of each class, at least 1

    Returns
    -------
    float64 [K], sums to K

    Raises
    ------
    ValueError : a count below 1, or counts that are not one-dimensional
    """
    return _normalised(1.0 / checked_counts(class_counts))


def square_root_weights(class_counts: Sequence[int] | np.ndarray | Tensor) -> Tensor:
    """Return weights proportional to n_c ** -1/2; arguments, result and errors as `inverse_frequency_weights`."""
    return _normalised(checked_counts(class_counts) ** -0.5)


def power_weights(class_counts: Sequence[int] | np.ndarray | Tensor, rho: float = 1.2) -> Tensor:
    """Return weights proportional to pi_c ** -rho, pi_c = n_c / N: generalised re-weighting (Zhang et al., CVPR 2021).

    `rho` = 1 gives `inverse_frequency_weights`, 1/2 `square_root_weights`, 0 equal weights. The default is that of
    DisAlign on ImageNet-LT.

    Parameters
    ----------
    class_counts : [K], training images of each class, at least 1
    rho : at least 0

    Returns
    -------
    float64 [K], sums to K

    Raises
    ------
    ValueError : a count below 1, counts that are not one-dimensional, `rho` negative or not finite
    """
    if not 0 <= rho < float("inf"):
        raise ValueError(f"rho must be finite and at least 0, got {rho}")
    counts = checked_counts(class_counts)
    return _normalised((counts / counts.min()) ** -rho)


def logarithmic_weights(class_counts: Sequence[int] | np.ndarray | Tensor) -> Tensor:
    """Return weights 1 - log(n_c / n_max): 1 for the most frequent class, not normalised.

    Parameters
    ----------
    class_counts : [K], training images of each class, at least 1

    Returns
    -------
    float64 [K], at least 1 each

    Raises
    ------
    ValueError : a count below 1, or counts that are not one-dimensional

    Source: "WeightedSoftmax" of the LADE and MONICA code.
    """
    counts = checked_counts(class_counts)
    return 1 - (counts / counts.max()).log()


def effective_number_weights(class_counts: Sequence[int] | np.ndarray | Tensor, beta: float) -> Tensor:
    """Return weights proportional to (1 - beta) / (1 - beta ** n_c): Cui et al., CVPR 2019, eq. 2 and section 4.

    `beta` = 0 weights all classes equally; `beta` towards 1 gives `inverse_frequency_weights`.

    Parameters
    ----------
    class_counts : [K], training images of each class, at least 1
    beta : in [0, 1)

    Returns
    -------
    float64 [K], sums to K

    Raises
    ------
    ValueError : a count below 1, counts that are not one-dimensional, `beta` outside [0, 1)
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta}")
    counts = checked_counts(class_counts)
    if beta == 0:
        return torch.ones_like(counts)
    # 1 - beta ** n loses all its digits where n * (1 - beta) is tiny; expm1 keeps them.
    return _normalised(-1.0 / torch.expm1(counts * float(np.log(beta))))


def checked_counts(class_counts: Sequence[int] | np.ndarray | Tensor) -> Tensor:
    """Return class counts as float64 [K] on the CPU.

    Raises
    ------
    ValueError : not one-dimensional, empty, or a count below 1 or not finite
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64).cpu()
    if counts.ndim != 1 or counts.numel() == 0:
        raise ValueError(f"class_counts must be one-dimensional and not empty, got shape {tuple(counts.shape)}")
    if not (torch.isfinite(counts).all() and (counts >= 1).all()):
        raise ValueError(f"every class needs at least one training image, got class_counts {counts.tolist()}")
    return counts


def _normalised(weights: Tensor) -> Tensor:
    return weights * (len(weights) / weights.sum())
