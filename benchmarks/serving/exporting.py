"""Exports: written into a temporary folder, read back, compared with the trained network, then put into place."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ltbench.benchmarks.plots.images import find_store
from ltbench.benchmarks.serving.card import model_card
from ltbench.benchmarks.serving.formats import FORMATS, INSIDE, Scorer
from ltbench.benchmarks.serving.model import TrialModel
from ltbench.benchmarks.serving.portable import description
from ltbench.errors import UserError
from ltbench.files import write_bytes, write_json

_COMPARED = 64  # images
_BATCH = 16
_TOLERANCE = 1e-3  # of a logit, or of the largest where that is above 1
_RECORD_TOLERANCE = 1e-2  # likewise; batches and devices round otherwise


class Compared(NamedTuple):
    """What an export was compared on.

    Attributes
    ----------
    images : what they are, in words
    difference : largest of a logit
    """

    images: str
    difference: float


def export(model: TrialModel, kind: str, out: Path, opset: int | None = None) -> Compared:
    """Write a network into a new folder in a format of `FORMATS`, with a description and a model card.

    Parameters
    ----------
    model : on the CPU; it computes in float32 from then on
    opset : of ONNX; None: torch's default

    Raises
    ------
    UserError : the folder is there, the network cannot be written in this format, or scores otherwise than trained
    """
    model.use_precision("fp32")
    with _new_folder(out) as folder:
        scorer = FORMATS[kind](model, folder, opset)
        compared = compare(model, scorer)
        write_json(folder / "preprocessing.json", description(model, inside=kind in INSIDE))
        write_bytes(folder / "README.md", model_card(model, kind, compared.images, compared.difference).encode())
    return compared


@torch.no_grad()
def compare(model: TrialModel, scorer: Scorer) -> Compared:
    """Return the largest difference between what was exported and the trained network.

    Raises
    ------
    UserError : it is larger than rounding explains, or no number; or the trained network scores otherwise than recorded
    """
    pixels, what, recorded = comparison_images(model)
    largest, scale = 0.0, 1.0
    if recorded is not None:
        _compare_with_record(model, pixels, what, recorded)
    for start in range(0, len(pixels), _BATCH):
        batch = torch.from_numpy(pixels[start : start + _BATCH])
        trained, exported = model.scores(batch), scorer(batch.float() / 255)
        difference, scale = float((trained - exported).abs().max()), max(scale, float(trained.abs().max()))
        if not difference <= _TOLERANCE * scale:  # NaN is no number that is smaller
            raise UserError(f"the exported network scores {what} otherwise than the trained one, by {difference:g}")
        largest = max(largest, difference)
    return Compared(what, largest)


def _compare_with_record(model: TrialModel, pixels: np.ndarray, what: str, recorded: np.ndarray) -> None:
    """Refuse a network that scores most images otherwise than the trial did.

    Single images may differ: a method that chooses, such as one with early exits, may choose otherwise by rounding.
    """
    batches = (torch.from_numpy(pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH))
    scores = np.concatenate([model.scores(batch).float().numpy() for batch in batches])
    difference = float(np.median(np.abs(scores - recorded).max(axis=1)))
    if not difference <= _RECORD_TOLERANCE * max(1.0, float(np.abs(recorded).max())):
        raise UserError(
            f"the network of {model.record.folder}, as this version builds it, scores {what} otherwise than recorded, "
            f"by {difference:g}; it was trained by {model.record.result.code_version}: use that version, or train again"
        )


def comparison_images(model: TrialModel) -> tuple[np.ndarray, str, np.ndarray | None]:
    """Return images for the comparison, what they are, and their recorded logits, float [n, K].

    Validation images as they are stored, uint8 [n, 3, S, S], else random ones. Random ones have no recorded logits, nor
    have those of a trial in bf16, which differ from float32's by more than rounding.
    """
    record = model.record
    try:
        manifest = record.manifest()
        store = find_store(record, manifest, record.folder.absolute().parents[2])
        if not isinstance(store, str) and store.size == model.stored_size:
            ids, _ = manifest.part("val")
            chosen = ids[np.linspace(0, len(ids) - 1, min(_COMPARED, len(ids))).astype(int)]
            pixels, what = store.pixels[store.rows(chosen)], f"{len(chosen)} validation images"
            return pixels, what, None if model.protocol.precision == "bf16" else _recorded(model, chosen)
    except UserError:  # split or store are not at hand, as of a trial that was copied
        pass
    shape = (_COMPARED, 3, model.stored_size, model.stored_size)
    random = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return random, f"{_COMPARED} random images (the trial's own are not at hand)", None


def _recorded(model: TrialModel, ids: np.ndarray) -> np.ndarray:
    """Return the recorded logits of validation images, float [n, K]."""
    saved, _, logits = model.validation
    place = {name: number for number, name in enumerate(saved.tolist())}
    return logits[[place[name] for name in ids.tolist()]]


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder that takes its name when it is whole; a failure leaves nothing behind.

    Raises
    ------
    UserError : something is there
    """
    if os.path.lexists(out):
        raise UserError(f"--out {out} is there already; give the name of a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f"{out.name}.{uuid.uuid4().hex[:12]}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
