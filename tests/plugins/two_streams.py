"""TWO STREAMS: shuffled images and class-balanced ones side by side, the balanced ones counting more and more.

loss = (1 - t) CE(first stream) + t CE(second stream), t the fraction of training done.
Neutral: none, it sees twice the images
"""

from collections.abc import Generator, Mapping

import numpy as np
from torch import Tensor

from ltbench.methods import Batch, Method, Progress, Run, Stage, StageResult, register
from ltbench.methods.stages import Pool
from ltbench.samplers import class_aware_stream


@register("two_streams")
class TwoStreams(Method):
    """One stage with a partner stream."""

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage of two streams."""
        yield Stage("train", run.epochs, stop=run.early_stopping(), partner=self._balanced)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the mixed loss and its two parts."""
        assert batch.partner is not None
        parts = [self.loss_function(self.predict(each.images), each.targets) for each in (batch, batch.partner)]
        total = (1 - progress.fraction) * parts[0] + progress.fraction * parts[1]
        return {"loss": total, "shuffled": parts[0], "balanced": parts[1]}

    def _balanced(self, pool: Pool, progress: Progress, rng: np.random.Generator) -> np.ndarray:
        return class_aware_stream(pool.labels, 4, pool.length, rng)
