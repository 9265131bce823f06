"""The network of a finished trial as one module, with the preprocessing of its training and its temperature."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ltbench.benchmarks.analysis.records import Record
from ltbench.benchmarks.analysis.reliability.calibration import fitted_temperature
from ltbench.benchmarks.serving.trials import opened, trained_method
from ltbench.benchmarks.training.device import autocast, compute_dtype, resolve_device, resolve_precision
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.datasets.images.augmentation import stored_size
from ltbench.datasets.images.decoding import DAMAGE, damage_line, read_image, resized
from ltbench.datasets.images.transforms import BatchTransform
from ltbench.errors import UserError
from ltbench.methods.base import Method

ImageInput = Image.Image | Path | str
"""An image of PIL, or a path."""


class TrialModel(nn.Module):
    """A trained network that scores images as its trial scored test images.

    Parameters
    ----------
    record : of the trial
    method, protocol : as `trained_method` returns them
    device : of the method

    Attributes
    ----------
    class_names : K names, in the order of the logits
    image_size, stored_size : sides of the network's input, and of the decoded images that it is made of
    precision : of the network, `fp32` or `bf16`
    """

    def __init__(self, record: Record, method: Method, protocol: Protocol, device: torch.device) -> None:
        super().__init__()
        self.record, self.method, self.protocol, self.device = record, method, protocol, device
        self.class_names = record.result.data.class_names
        self.image_size = protocol.image_size
        self.stored_size = record.result.data.stored_size or stored_size(protocol.image_size)
        self.use_precision(_precision(record, protocol, device))

    def use_precision(self, precision: str) -> None:
        """Compute in another precision than the trial's."""
        self.precision = precision
        self._transform = BatchTransform(self.image_size, self.protocol.augmentation, compute_dtype(precision))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, K] of prepared images, float [B, 3, H, W]."""
        fp32_is_fp32 = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with autocast(self.device, self.precision), fp32_is_fp32:
            return self.method.predict(images)

    def decode(self, image: ImageInput) -> np.ndarray:
        """Return an image as it would be stored for training: uint8 [3, stored_size, stored_size].

        Raises
        ------
        UserError : it cannot be read
        """
        try:
            if isinstance(image, Image.Image):
                return resized(image, self.stored_size)
            return read_image(str(image), self.stored_size)
        except DAMAGE as error:
            what = "the image" if isinstance(image, Image.Image) else f"the image {image}"
            raise UserError(f"cannot read {what}: {damage_line(error)}") from error

    def scores(self, pixels: Tensor) -> Tensor:
        """Return logits [B, K] of decoded images, uint8 [B, 3, S, S], as the trial scored test images.

        Of a trial with `--tta five_crop` they are the mean of five crops.
        """
        pixels = pixels.to(self.device)
        if self.protocol.tta == "none":
            return self(self.prepare(pixels))
        return torch.stack([self(images) for images in self._transform.five_crops(pixels)]).mean(dim=0)

    def prepare(self, pixels: Tensor) -> Tensor:
        """Return the network's input of decoded images: uint8 [B, 3, S, S] to float [B, 3, H, W] on the device."""
        return self._transform.evaluate(pixels.to(self.device))

    def preprocess(self, image: ImageInput) -> Tensor:
        """Return an image as the network takes it: float [3, H, W] on the device.

        Raises
        ------
        UserError : it cannot be read
        """
        return self.prepare(torch.from_numpy(self.decode(image))[None])[0]

    @torch.no_grad()
    def predict_proba(self, images: Tensor | Sequence[ImageInput]) -> Tensor:
        """Return probabilities, float64 [B, K]: softmax(logits / temperature).

        They are calibrated by temperature alone; scores of plain training stand for the training set's shares of the
        classes, which `ltbench predict --prior` corrects.

        Parameters
        ----------
        images : prepared, float [B, 3, H, W], of one crop each; or paths or images of PIL, of the trial's crops

        Raises
        ------
        UserError : an image cannot be read, or the trial's predictions of validation images are missing
        """
        if isinstance(images, Tensor):
            logits = self(images.to(self.device))
        else:
            logits = self.scores(torch.from_numpy(np.stack([self.decode(image) for image in images])))
        return (logits.double() / self.temperature).softmax(dim=1)

    @cached_property
    def validation(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids [n], labels int [n] and logits float [n, K] of the validation images, as recorded.

        Raises
        ------
        UserError : missing, corrupt or altered, naming the file
        """
        saved = self.record.predictions()
        return saved["val_ids"], saved["val_labels"], saved["val_logits"]

    @cached_property
    def temperature(self) -> float:
        """By which logits are divided; it has the smallest cross-entropy on validation images.

        Raises
        ------
        UserError : as `validation`
        """
        _, labels, logits = self.validation
        return fitted_temperature(labels, logits)


def _precision(record: Record, protocol: Protocol, device: torch.device) -> str:
    """Return the precision of a trial's network on a device.

    Raises
    ------
    UserError : bf16, of a GPU without it
    """
    try:
        return resolve_precision(protocol.precision, device)
    except UserError as error:
        what = f"{record.folder} was trained in {protocol.precision}, which {device} has not"
        raise UserError(f"{what}; use --device cpu") from error


def load_model(trial_folder: Path | str, device: str = "cpu") -> TrialModel:
    """Return the network of a finished trial: a `torch.nn.Module` of prepared images to logits, in eval mode.

    Parameters
    ----------
    trial_folder : results/<setting>/<method>-<hash>/trial<k>
    device : auto, cpu, cuda or cuda:N

    Raises
    ------
    UserError : no finished trial; weights that are missing, corrupt or altered; a plug-in that is missing or changed
    """
    record, chosen = opened(Path(trial_folder)), resolve_device(device)
    return TrialModel(record, *trained_method(record, chosen), chosen).eval()
