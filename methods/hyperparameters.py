"""A method's own hyper-parameters: default, range, sweep and source side by side, typed and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ltbench.errors import UserError
from ltbench.options import check_declared, filled

# Identical for every method by construction: a Config that declares one of these is refused.
PROTOCOL_FIELDS = frozenset(
    {
        "augmentation",
        "backbone",
        "batch_size",
        "budget",
        "epoch_length",
        "epochs",
        "folds",
        "frozen_features",
        "image_size",
        "init",
        "lr",
        "lr_warmup",
        "optimizer",
        "patience",
        "precision",
        "preset",
        "schedule",
        "seed",
        "selection_metric",
        "tta",
        "tune",
        "tune_rank",
        "vary_split",
        "weight_decay",
        "weights",
        "weights_sha256",
    }
)


def hp(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    presets: Mapping[str, Any] | None = None,
    sweep: tuple[Any, ...] | None = None,
    source: str = "",
    pretraining: bool = False,
) -> Any:
    """Declare one field of a method's `Config`.

    Parameters
    ----------
    default : value under the paper's preset; it must lie in the range and fit the field's annotation
    low, high : inclusive bounds of a number
    presets : other defaults under other presets, by preset name
    sweep : values worth trying
    source : where default and range come from
    pretraining : whether it is of pre-training, which a shared encoder (`--init`) takes the place of
    """
    metadata = {"low": low, "high": high, "presets": dict(presets or {}), "sweep": sweep, "source": source}
    metadata["pretraining"] = pretraining
    return dataclasses.field(default=default, metadata=metadata)


def check_config(owner: str, config: type) -> None:
    """Refuse a `Config` that is no frozen dataclass or that redeclares a field of the protocol.

    Raises
    ------
    TypeError
    """
    check_declared(f"{owner}.Config", config)
    repeated = sorted(PROTOCOL_FIELDS & {field.name for field in dataclasses.fields(config)})
    if repeated:
        raise TypeError(
            f"{owner}.Config redeclares {', '.join(repeated)}, which the protocol fixes for every method alike; "
            "remove the field"
        )


def configure(name: str, config: type, preset: str, overrides: Mapping[str, Any]) -> Any:
    """Return an instance of a method's `Config`: defaults of the preset, then the overrides.

    Parameters
    ----------
    name : of the method, for messages
    overrides : values, or strings as the command line has them

    Raises
    ------
    UserError : an unknown field, or a value of the wrong type or out of range
    """
    fields = dataclasses.fields(config)
    for key in () if fields else overrides:
        raise UserError(f"method {name} has no hyper-parameters, got {key!r}")
    presets = {field.name: field.metadata.get("presets", {}) for field in fields}
    defaults = {field: values[preset] for field, values in presets.items() if preset in values}
    return filled(config, overrides, label=name, what=f"hyper-parameter of {name}", defaults=defaults)
