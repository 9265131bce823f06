"""One network or the average of a row's trials, with what its validation images decide."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ltbench.benchmarks.serving.decisions import set_limits
from ltbench.benchmarks.serving.model import TrialModel, load_model
from ltbench.benchmarks.serving.priors import Source, calibration_for, source_prior, validation_prior
from ltbench.errors import UserError


def trial_folders(folder: Path) -> list[Path]:
    """Return the folders of the finished trials of a trial's row, by number."""
    found = (path.parent for path in folder.absolute().parent.glob("trial*/result.json"))
    return sorted(found, key=lambda path: (len(path.name), path.name))


def load_models(folder: Path, device: str, *, ensemble: bool) -> list[TrialModel]:
    """Return the network of a trial; of an ensemble, those of all finished trials of its row.

    Raises
    ------
    UserError : as `load_model`
    """
    first = load_model(folder, device)
    if not ensemble:
        return [first]
    return [first if path == folder.absolute() else load_model(path, device) for path in trial_folders(folder)]


class Predictor:
    """Calibrated probabilities: of a network, or the mean of those of several.

    Parameters
    ----------
    models : trials of one row
    prior : shares of the classes among the images that are to come, float64 [K]; None: each trial's validation's

    Attributes
    ----------
    calibrations : of each model
    sources : of each model, the prior that its scores stand for

    Raises
    ------
    UserError : predictions of validation images are missing or corrupt
    """

    def __init__(self, models: Sequence[TrialModel], prior: np.ndarray | None = None) -> None:
        self.models, self.prior = models, prior
        self.class_names = models[0].class_names
        self.sources: tuple[Source, ...] = tuple(
            source_prior(*model.validation[1:], _class_counts(model)) for model in models
        )
        self.calibrations = [
            calibration_for(self._prior_of(model) if prior is None else prior, source, _class_counts(model))
            for model, source in zip(models, self.sources, strict=True)
        ]

    @torch.no_grad()
    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return probabilities, float64 [B, K], of decoded images, uint8 [B, 3, S, S]."""
        images = torch.from_numpy(pixels)
        return self._mean([model.scores(images).float().cpu().numpy() for model in self.models])

    @cached_property
    def shares_validation(self) -> bool:
        """Whether all trials have the same validation images, so that what they decide holds for the mean."""
        ids = self.models[0].validation[0]
        return all(np.array_equal(ids, model.validation[0]) for model in self.models)

    @cached_property
    def validation(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels int [n] and probabilities float64 [n, K] of the validation images.

        Raises
        ------
        UserError : the trials do not share their validation images, so that they may have been trained on each other's
        """
        if not self.shares_validation:
            raise UserError(
                f"the trials of {self.models[0].record.folder.parent} have splits of their own, so that no image is "
                "validation of all; thresholds need --ensemble left out"
            )
        return self.models[0].validation[1], self._mean([model.validation[2] for model in self.models])

    @cached_property
    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels int [n] and probabilities float64 [n, K] of the test images, which trials share like `validation`."""
        saved = [model.record.predictions() for model in self.models]
        return saved[0]["test_labels"], self._mean([own["test_logits"] for own in saved])

    def lesions(self, part: str) -> np.ndarray | None:
        """Return the lesion of each image of the part `val` or `test`, str [n], where the split is at hand."""
        record = self.models[0].record
        return record.lesions(record.predictions()[f"{part}_ids"])

    def limits(self, coverage: float) -> np.ndarray | None:
        """Return the smallest probability with which each class is in a conformal set, float64 [K].

        None: too few validation images, or trials that do not share them.
        """
        if not self.shares_validation:
            return None
        labels, probabilities = self.validation
        weights = None
        if self.prior is not None:
            seen = np.bincount(labels, minlength=len(self.prior)) / len(labels)
            unseen = np.where(self.prior > 0, np.inf, 0.0)
            weights = np.divide(self.prior, seen, out=unseen, where=seen > 0)
        return set_limits(labels, probabilities, 1 - coverage, weights)

    def _prior_of(self, model: TrialModel) -> np.ndarray:
        return validation_prior(model.validation[1], len(self.class_names))

    def _mean(self, logits: Sequence[np.ndarray]) -> np.ndarray:
        own = [each.probabilities(values) for each, values in zip(self.calibrations, logits, strict=True)]
        return np.mean(own, axis=0)


def _class_counts(model: TrialModel) -> Sequence[int]:
    return model.record.result.data.class_counts
