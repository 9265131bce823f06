"""Passes without training: logits, features and MC dropout over the images of a part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ltbench.benchmarks.training.device import autocast
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stages.features import transform_of
from ltbench.datasets.images.part import ImagePart
from ltbench.methods.base import Method
from ltbench.methods.contract import Contract

_BLOCK = 1 << 24  # logits that are on the device at once: float32, 64 MiB


class Inference:
    """Runs a method in eval mode; nothing of the method changes.

    Parameters
    ----------
    method : on `device`
    protocol : with precision resolved: how images are prepared, of how many crops logits are the mean, images a pass
    """

    def __init__(self, method: Method, protocol: Protocol, device: torch.device) -> None:
        self.method, self.device, self.precision = method, device, protocol.precision
        self.transform = transform_of(protocol, protocol.augmentation)
        self.batch_size, self._crops = protocol.batch_size, protocol.tta == "five_crop"
        self._contract = Contract.of(method)

    def logits(
        self,
        part: ImagePart,
        indices: np.ndarray | None = None,
        predict: Callable[[Tensor], Tensor] | None = None,
    ) -> np.ndarray:
        """Return `predict`, by default `Method.predict`: float32 [n, K]."""
        return np.concatenate(list(self.logit_blocks(part, indices, predict)))

    def logit_blocks(
        self,
        part: ImagePart,
        indices: np.ndarray | None = None,
        predict: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[np.ndarray]:
        """Yield what `logits` returns in blocks of some batches, float32 [b, K]: at many classes the whole is large."""
        predict = predict or self.method.predict

        def checked(images: Tensor) -> Tensor:
            return self._contract.logits("predict", predict(images), len(images))

        indices = np.arange(len(part)) if indices is None else np.asarray(indices, dtype=np.int64)
        batches = max(1, _BLOCK // (self.batch_size * self.method.task.num_classes))
        for block in np.split(indices, range(batches * self.batch_size, len(indices), batches * self.batch_size)):
            with self._evaluating():
                logits = _to_numpy([self._mean(checked, pixels) for pixels in self._pixels(part, block)])
            yield logits

    def inspected(self, part: ImagePart, indices: np.ndarray | None = None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return `Method.inspect`: logits float32 [n, K], and further arrays [n] by name, of the first crop."""
        logits, details = [], []
        with self._evaluating():
            for pixels in self._pixels(part, indices):
                found = [self._inspect(images) for images in self._views(pixels)]
                logits.append(_mean_of([own for own, _ in found]))
                details.append(found[0][1])
        return _to_numpy(logits), {
            name: torch.cat([batch[name] for batch in details]).cpu().numpy() for name in details[0]
        }

    def features(self, part: ImagePart, indices: np.ndarray | None = None) -> np.ndarray:
        """Return `Method.features`: float32 [n, D]."""
        with self._evaluating():
            return _to_numpy([self._features(images) for images in self._images(part, indices)])

    def rehearse(self, part: ImagePart) -> None:
        """Call `Method.predict` and `Method.inspect` on two images, so that a breach is noticed before training."""
        first = np.arange(min(2, len(part)))
        if type(self.method).predict is Method.predict:
            self.features(part, first)
        self.logits(part, first)
        self.inspected(part, first)

    def mc_scores(
        self,
        part: ImagePart,
        indices: np.ndarray,
        passes: int,
        seed: int,
        score: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        """Return scores of images from their class probabilities under dropout; `score` as for `Run.mc_scores`.

        The backbone runs once; only `Method.classify` is repeated, with dropout layers on and all else in eval mode.
        Draws come from `seed` alone, and the global generators are left as they were.
        """
        dropouts: list[nn.Module] = [module for module in self.method.modules() if isinstance(module, _DropoutNd)]
        devices = [self.device] if self.device.type == "cuda" else []
        scores = []
        with self._evaluating(), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            for images in self._images(part, indices):
                features = self._features(images)
                with _training(dropouts):
                    draws = [
                        self._contract.logits("classify", self.method.classify(features), len(images))
                        for _ in range(passes)
                    ]
                scores.append(score(torch.stack(draws).double().softmax(dim=2).cpu().numpy()))
        return np.concatenate(scores)

    def _features(self, images: Tensor) -> Tensor:
        return self._contract.features(self.method.features(images), len(images))

    def _inspect(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self._contract.inspected(self.method.inspect(images), len(images))

    def _mean(self, predict: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        """Return the mean of what is predicted of the crops of images, or of the whole ones."""
        return _mean_of([predict(images) for images in self._views(pixels)])

    def _views(self, pixels: Tensor) -> Iterable[Tensor]:
        return self.transform.five_crops(pixels) if self._crops else (self.transform.evaluate(pixels),)

    def _images(self, part: ImagePart, indices: np.ndarray | None) -> Iterator[Tensor]:
        yield from map(self.transform.evaluate, self._pixels(part, indices))

    def _pixels(self, part: ImagePart, indices: np.ndarray | None) -> Iterator[Tensor]:
        indices = np.arange(len(part)) if indices is None else np.asarray(indices, dtype=np.int64)
        for start in range(0, len(indices), self.batch_size):
            chunk = indices[start : start + self.batch_size]
            yield part.gather(chunk)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        modes = {module: module.training for module in self.method.modules()}
        self.method.eval()
        try:
            with torch.no_grad(), autocast(self.device, self.precision):
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode


@contextmanager
def _training(modules: list[nn.Module]) -> Iterator[None]:
    for module in modules:
        module.training = True
    try:
        yield
    finally:
        for module in modules:
            module.training = False


def _mean_of(logits: list[Tensor]) -> Tensor:
    return logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0)


def _to_numpy(batches: list[Tensor]) -> np.ndarray:
    return torch.cat(batches).float().cpu().numpy()
