"""Declared options: the fields of a frozen dataclass, each with default, range and meaning; typed and checked.

A method's `Config` and a dataset's `Options` are both declared so.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import re
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ltbench.errors import UserError
from ltbench.registry import unknown

_KINDS = {int: "a whole number", float: "a number", str: "text"}


def option(default: Any, *, low: float | None = None, high: float | None = None, help: str = "") -> Any:
    """Declare one option, as a field of a frozen dataclass.

    What it may be is its annotation: `int`, `float`, `str`, `bool`, `tuple[str, ...]` (on the command line separated by
    commas, one that holds a comma in double quotes), a `Literal`, or one of these or None (`none`).

    Parameters
    ----------
    low, high : inclusive bounds of a number
    help : what it means, in a few words
    """
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "help": help})


def check_declared(label: str, declared: type) -> None:
    """Refuse a class of options that is no frozen dataclass, or has a field without default or with one out of range.

    Raises
    ------
    TypeError
    """
    # Looked up in the class itself: a subclass inherits the parameters of its base, undecorated though it be.
    parameters = vars(declared).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        raise TypeError(f"{label} must be decorated with @dataclass(frozen=True)")
    for field in dataclasses.fields(declared):
        if field.default is dataclasses.MISSING:
            raise TypeError(f"{label}: {field.name} has no default")
        for value in (field.default, *field.metadata.get("presets", {}).values()):
            if not _in_range(value, field.metadata):
                raise TypeError(f"{label}: {field.name} has the default {value!r}, which is out of its range")


def filled(
    declared: type, given: Mapping[str, Any], *, label: str, what: str, defaults: Mapping[str, Any] | None = None
) -> Any:
    """Return an instance of a class of options with what was given, typed and checked.

    Parameters
    ----------
    given : values, or strings as the command line has them
    label : whose options they are, for messages
    what : what one of them is called, e.g. `option of dataset csv`
    defaults : other defaults than the declared ones

    Raises
    ------
    UserError : an unknown option, or a value of the wrong type or out of range
    """
    hints = get_type_hints(declared)
    fields = {field.name: field for field in dataclasses.fields(declared)}
    values = dict(defaults or {})
    for key, raw in given.items():
        if key not in fields:
            raise unknown(what, key, fields or ["none"])
        values[key] = _typed(f"{label}: {key}", hints[key], raw)
    for key, value in values.items():
        _check_range(f"{label}: {key}", value, fields[key].metadata)
    return declared(**values)


def allowed(field: dataclasses.Field) -> str:
    """Return what an option may be, as text: the bounds of a number, the values of a `Literal`, or its type."""
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is not None or high is not None:
        return f"{'' if low is None else f'{low:g}'} .. {'' if high is None else f'{high:g}'}".strip()
    choices = re.search(r"Literal\[(.*?)\]", str(field.type))
    return re.sub("[\"']", "", choices[1]) if choices else str(field.type).replace(" | None", " or none")


def shown(value: Any) -> str:
    """Return a value as the command line takes it."""
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _typed(label: str, annotation: Any, raw: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        if raw is None or (isinstance(raw, str) and raw.lower() == "none"):
            return None
        annotation = next(each for each in get_args(annotation) if each is not type(None))
    if get_origin(annotation) is Literal:
        values = {str(each): each for each in get_args(annotation)}
        if str(raw) not in values:
            raise UserError(f"{label} must be one of {', '.join(values)}, got {raw!r}")
        return values[str(raw)]
    if get_origin(annotation) is tuple:
        texts = next(csv.reader([raw], skipinitialspace=True)) if isinstance(raw, str) else raw
        return tuple(str(each).strip() for each in texts)
    if annotation is bool:
        if str(raw).lower() not in ("true", "false"):
            raise UserError(f"{label} must be true or false, got {raw!r}")
        return str(raw).lower() == "true"
    try:
        value = annotation(raw)
    except (TypeError, ValueError, OverflowError):
        value = None
    if value is None or (annotation is int and isinstance(raw, float) and value != raw):
        raise UserError(f"{label} must be {_KINDS.get(annotation, annotation)}, got {raw!r}")
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
