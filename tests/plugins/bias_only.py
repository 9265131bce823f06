"""BIAS ONLY: of a pre-trained transformer only biases, norms and the head are trained (BitFit).

Neutral: none, most weights stand still
"""

from typing import Any

from ltbench.errors import UserError
from ltbench.methods import Method, register


@register("bias_only")
class BiasOnly(Method):
    """Overrides the parameters that are trained."""

    def build(self) -> None:
        """Add a linear head; refuse a network without attention blocks."""
        if not hasattr(self.backbone, "blocks"):
            raise UserError("bias_only needs a transformer; choose a --backbone such as vit_tiny_patch16_224")
        super().build()

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return biases, norms and the head, without weight decay."""
        moved = [
            parameter
            for name, parameter in self.named_parameters()
            if name.endswith(".bias") or ".norm" in name or name.startswith("head.")
        ]
        return [{"params": moved, "lr": lr, "weight_decay": 0.0}]
