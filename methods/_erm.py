"""The plain training that methods share: cross-entropy on all images, the first stage of two-stage methods.

Methods that begin with it describe it alike, so that it is computed once in a trial: `ce` reports it, the others
build on exactly that model, and the differences between them owe nothing to the luck of a first stage.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from ltbench.methods.base import Method, Run
from ltbench.methods.stages import Batch, Progress, Stage


def erm_stage(method: Method, run: Run, *, select: bool = False) -> Stage:
    """Return the stage that trains `method.backbone` and the linear `method.head`, and nothing else of the method.

    Its head must be the first thing that `build` draws (`super().build()`), or the stage starts from other weights
    and is not shared. The stage ends with its best epoch. It has the name, and so the random streams, of the one stage
    of other methods: a method whose loss is cross-entropy trains exactly as `ce` does. Sampler, transform and optimizer
    are the base class's: a method with hooks of its own for them gives them to its later stages (`Stage(sampler=...)`).

    Parameters
    ----------
    select : whether its epochs may be reported; the method may then override none of the hooks that train or predict
    """

    def logits(images: Tensor) -> Tensor:
        return Method.classify(method, Method.features(method, images))

    def loss(batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return {"loss": functional.cross_entropy(logits(batch.images), batch.targets)}

    return Stage(
        "train",
        run.epochs,
        loss=loss,
        predict=logits,
        params=[*method.backbone.parameters(), *method.head.parameters()],
        stop=run.early_stopping(),
        keep="best",
        select=select,
        recipe={"objective": "cross_entropy", "version": 2},
        produces=("backbone", "head"),
    )
