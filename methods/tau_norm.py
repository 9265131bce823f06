"""τ-norm: the classifier's weight vectors shrunk towards equal length after plain training, without a bias.

    z_c = w_c . f / ||w_c|| ** tau

Plain training leaves longer weight vectors to frequent classes; tau = 0 keeps them (without the bias), tau = 1 makes
all as long (Kang et al., ICLR 2020, eq. 3).

1. Plain training (`methods/_erm.py`), best epoch.
2. Nothing is trained: tau = 0, 0.1, ..., 1 are scored on validation, and the best is reported, the smallest on a tie.

Defaults: the paper's range. The original script (facebookresearch/classifier-balancing f162adef) prints 0 to 2 on
any split, test too; here test is never asked. `tau` set to a number is used as it is.
Source: Kang et al., ICLR 2020 (Decoupling), section 4.3, eq. 3.
Cost: one training, shared and charged in full; a validation pass for each tau.
Neutral: none, it leaves out the bias
Status: verified against the original code
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ltbench.methods import hp, register
from ltbench.methods._erm import erm_stage
from ltbench.methods.base import Method, Run, full_precision
from ltbench.methods.stages import Stage, StageResult

_GRID = tuple(np.linspace(0, 1, 11).round(1).tolist())
_SMALLEST_LENGTH = 1e-12  # 0 / 0 is no number


@register("tau_norm")
class TauNormalization(Method):
    """A choice after training; hooks used: build, classify, stages."""

    needs = "features"

    tau: Tensor

    @dataclass(frozen=True)
    class Config:
        """The exponent."""

        tau: float | None = hp(None, low=0.0, high=1.0, source="Kang 2020, section 4.3; none: by validation")

    def build(self) -> None:
        """Add the exponent, float64 scalar, to the linear head."""
        super().build()
        self.register_buffer("tau", torch.tensor(self.config.tau or 0.0, dtype=torch.float64))

    def classify(self, features: Tensor) -> Tensor:
        """Return logits [B, K] of the normalised classifier, at least float32; 0 for a class vector of length 0."""
        weight = self.head.weight
        with torch.autocast(features.device.type, enabled=False):
            lengths = weight.norm(dim=1, keepdim=True).clamp_min(_SMALLEST_LENGTH)
            return functional.linear(full_precision(features), weight / lengths ** self.tau.to(weight.dtype))

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield plain training, then one variant for each exponent."""
        yield erm_stage(self, run)
        for tau in _GRID if self.config.tau is None else (self.config.tau,):
            self.tau.fill_(tau)
            yield Stage(f"tau={tau:g}", 0)
