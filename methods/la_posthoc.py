"""LA post-hoc: logit adjustment after plain training, which moves decisions towards rare classes.

    z_c - tau * log(pi_c),   pi_c = n_c / N

On balanced data the Bayes rule of a model of p(y|x) under training priors pi is the one with tau = 1 (Menon et al.,
ICLR 2021, section 4.1); where the model is not calibrated another tau is better.

1. Plain training (`methods/_erm.py`), best epoch.
2. Nothing is trained: tau = 0, 0.25, ..., 2 are scored on validation, and the best is reported, the smallest on a
   tie. tau = 0 is `ce` itself, so on validation this method is never behind it.

Defaults: tau by validation, as the paper tunes it; `tau` set to a number is used as it is (1 is the Bayes rule).
Reported logits are the adjusted ones, so calibration and AUROC are those of the adjusted model.
Source: Menon et al., ICLR 2021, eq. 9.
Cost: one training, shared and charged in full; a validation pass for each tau.
Neutral: tau=0
Status: from the paper; the grid is our reading
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ltbench.methods import hp, register
from ltbench.methods._erm import erm_stage
from ltbench.methods.base import Method, Run
from ltbench.methods.stages import Stage, StageResult

_GRID = tuple(np.linspace(0, 2, 9).tolist())


@register("la_posthoc")
class PostHocLogitAdjustment(Method):
    """A choice after training; hooks used: build, classify, stages."""

    needs = "features"

    tau: Tensor
    log_priors: Tensor

    @dataclass(frozen=True)
    class Config:
        """The strength."""

        tau: float | None = hp(None, low=0.0, source="Menon 2021, section 4.1; none: by validation")

    def build(self) -> None:
        """Add log priors, float64 [K], and the strength, float64 scalar, to the linear head."""
        super().build()
        priors = self.task.class_counts / self.task.class_counts.sum()
        self.register_buffer("log_priors", torch.from_numpy(np.log(priors)))
        self.register_buffer("tau", torch.tensor(self.config.tau or 0.0, dtype=torch.float64))

    def classify(self, features: Tensor) -> Tensor:
        """Return adjusted logits [B, K], at least float32."""
        logits = super().classify(features)
        return logits - self.tau.to(logits.dtype) * self.log_priors.to(logits.dtype)

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield plain training, then one variant for each strength."""
        yield erm_stage(self, run)
        for tau in _GRID if self.config.tau is None else (self.config.tau,):
            self.tau.fill_(tau)
            yield Stage(f"tau={tau:g}", 0)
