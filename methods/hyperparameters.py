"""A method's own hyper-parameters: default, range, sweep and source side by side, typed and checked."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ltbench.errors import UserError
from ltbench.registry import unknown

# Identical for every method by construction: a Config that declares one of these is refused.
PROTOCOL_FIELDS = frozenset(
    {
        "augmentation",
        "backbone",
        "batch_size",
        "epoch_length",
        "epochs",
        "image_size",
        "lr",
        "lr_warmup",
        "optimizer",
        "patience",
        "precision",
        "preset",
        "pretrained",
        "schedule",
        "seed",
        "selection_metric",
        "weight_decay",
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
) -> Any:
    """Declare one field of a method's `Config`.

    Parameters
    ----------
    default : value under the paper's preset; it must lie in the range and fit the field's annotation
    low, high : inclusive bounds of a number
    presets : other defaults under other presets, by preset name
    sweep : values worth trying
    source : where default and range come from
    """
    metadata = {"low": low, "high": high, "presets": dict(presets or {}), "sweep": sweep, "source": source}
    return dataclasses.field(default=default, metadata=metadata)


def check_config(owner: str, config: type) -> None:
    """Refuse a `Config` that is no frozen dataclass or that redeclares a field of the protocol.

    Raises
    ------
    TypeError
    """
    # Looked up in the class itself: a subclass of a Config inherits its parameters, undecorated though it be.
    parameters = vars(config).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        raise TypeError(f"{owner}.Config must be decorated with @dataclass(frozen=True)")
    for field in dataclasses.fields(config):
        if field.default is dataclasses.MISSING:
            raise TypeError(f"{owner}.Config: {field.name} has no default")
        for value in (field.default, *field.metadata.get("presets", {}).values()):
            if not _in_range(value, field.metadata):
                raise TypeError(f"{owner}.Config: {field.name} has the default {value!r}, which is out of its range")
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
    hints = get_type_hints(config)
    fields = {field.name: field for field in dataclasses.fields(config)}
    values = {
        field.name: field.metadata["presets"][preset]
        for field in fields.values()
        if preset in field.metadata.get("presets", {})
    }
    for key, raw in overrides.items():
        if key not in fields:
            if not fields:
                raise UserError(f"method {name} has no hyper-parameters, got {key!r}")
            raise unknown(f"hyper-parameter of {name}", key, fields)
        values[key] = _typed(f"{name}: {key}", hints[key], raw)
    for key, value in values.items():
        _check_range(f"{name}: {key}", value, fields[key].metadata)
    return config(**values)


def _typed(label: str, annotation: Any, raw: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        if raw is None or (isinstance(raw, str) and raw.lower() == "none"):
            return None
        annotation = next(option for option in get_args(annotation) if option is not type(None))
    if get_origin(annotation) is Literal:
        allowed = {str(option): option for option in get_args(annotation)}
        if str(raw) not in allowed:
            raise UserError(f"{label} must be one of {', '.join(allowed)}, got {raw!r}")
        return allowed[str(raw)]
    if annotation is bool:
        if str(raw).lower() not in ("true", "false"):
            raise UserError(f"{label} must be true or false, got {raw!r}")
        return str(raw).lower() == "true"
    kinds = {int: "a whole number", float: "a number", str: "text"}
    try:
        value = annotation(raw)
    except (TypeError, ValueError, OverflowError):
        value = None
    if value is None or (annotation is int and isinstance(raw, float) and value != raw):
        raise UserError(f"{label} must be {kinds.get(annotation, annotation)}, got {raw!r}")
    return value


def _check_range(label: str, value: Any, metadata: Mapping[str, Any]) -> None:
    if _in_range(value, metadata):
        return
    low, high = metadata.get("low"), metadata.get("high")
    bounds = [f"at least {low:g}"] if low is not None else []
    bounds += [f"at most {high:g}"] if high is not None else []
    raise UserError(f"{label} must be {' and '.join(bounds) or 'a finite number'}, got {value:g}")


def _in_range(value: Any, metadata: Mapping[str, Any]) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    low, high = metadata.get("low"), metadata.get("high")
    return math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
