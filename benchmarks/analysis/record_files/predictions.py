"""Saved predictions of a trial: read with checks, so that what is no table of logits is one line and not a number."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from ltbench.benchmarks.analysis.record_files.sealed import REMEDY
from ltbench.benchmarks.analysis.record_files.stored_logits import names as stored_names
from ltbench.benchmarks.analysis.record_files.stored_logits import restored
from ltbench.errors import UserError
from ltbench.files import BROKEN, HOSTILE, amount, require_regular

PARTS = ("val", "test")
_DEFLATE_RATIO = 1100  # no deflated byte becomes more than 1032


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a `predictions.npz`: of each part ids [n], labels int [n], logits float [n, K], and more.

    Logits are plain however they are stored (see `stored_logits`). An array is allocated only where the file is large
    enough to hold it.

    Raises
    ------
    UserError : missing, corrupt, or not of this form, naming the file
    """
    try:
        with zipfile.ZipFile(require_regular(path)) as archive:
            for member in archive.infolist():
                _require_size(archive, member)
        with np.load(path, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in saved.files}
        for part in PARTS:
            logits = restored(arrays, part)
            arrays = {name: own for name, own in arrays.items() if name not in stored_names(part)}
            arrays[f"{part}_logits"] = logits
            require_predictions(arrays, part)
    except (*BROKEN, *HOSTILE) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} is not readable ({reason}); {REMEDY}") from error
    return arrays


def require_predictions(arrays: dict[str, np.ndarray], part: str) -> None:
    """Check ids, labels and logits of a part.

    Raises
    ------
    KeyError : one of them is missing
    ValueError : shapes or kinds that do not fit, labels that are no class, or logits that are not finite
    """
    ids, labels, logits = (arrays[f"{part}_{name}"] for name in ("ids", "labels", "logits"))
    if (ids.dtype.kind, labels.dtype.kind, logits.dtype.kind) != ("U", "i", "f"):
        raise ValueError(f"{part}: ids, labels and logits must be text, whole numbers and numbers")
    if not (ids.shape == labels.shape and logits.ndim == 2 and logits.shape[:1] == ids.shape):
        raise ValueError(
            f"{part}: ids {ids.shape}, labels {labels.shape} and logits {logits.shape} must be [n] and [n, K]"
        )
    if ((labels < 0) | (labels >= logits.shape[1])).any():
        raise ValueError(f"{part}: a label is no class of 0 to {logits.shape[1] - 1}")
    if not np.isfinite([logits.min(), logits.max()]).all():  # NaN is both
        raise ValueError(f"{part}: a logit is not finite")


def _require_size(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Check that the header of an array claims no more bytes than its member of the archive can hold.

    Raises
    ------
    ValueError : it does
    """
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > member.file_size or member.file_size > _DEFLATE_RATIO * (member.compress_size + 1):
        raise ValueError(f"{member.filename} claims {amount(claimed)}, more than the file holds")
