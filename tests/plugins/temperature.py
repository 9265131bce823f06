"""TEMPERATURE: plain training, then one number by which logits are divided, fitted on validation.

Neutral: none, its logits are scaled
"""

from collections.abc import Generator

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import Tensor

from ltbench.methods import Method, Run, Stage, StageResult, register
from ltbench.methods._erm import erm_stage


@register("temperature")
class Temperature(Method):
    """A choice after training, from the validation logits."""

    def build(self) -> None:
        """Add the temperature, float64 scalar, to the linear head."""
        super().build()
        self.register_buffer("temperature", torch.ones((), dtype=torch.float64))

    def classify(self, features: Tensor) -> Tensor:
        """Return logits [B, K] divided by the temperature."""
        logits = super().classify(features)
        return logits / self.temperature.to(logits.dtype)

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield plain training, then the network with its temperature."""
        yield erm_stage(self, run)
        logits, labels = run.validation()
        self.temperature.fill_(fitted_temperature(logits, labels))
        yield Stage("scaled", 0)


def fitted_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature, 0.05 to 20, at which the mean cross-entropy is smallest."""

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return float(-log_softmax(scaled, axis=1)[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))
