"""What a user asks for, as one frozen value: the command line, files of it and Python programs all make a `Request`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ltbench.benchmarks.training.protocol import Protocol, published_weights
from ltbench.benchmarks.training.wandb_mirror import MODES
from ltbench.datasets.base import NATURAL
from ltbench.errors import UserError
from ltbench.files import require_regular, write_bytes
from ltbench.registry import unknown

Ratio = float | Literal["natural"]

MAX_TRIALS = 1000

PROTOCOL_CHANGES = {
    each.name: str(each.type)
    for each in fields(Protocol)
    if str(each.type) in ("int", "float", "bool", "str") and each.name not in ("preset", "seed", "weights_sha256")
}
"""The fields of the protocol that a request may change, with their types."""

_BOUNDS: Mapping[str, tuple[int, int | None]] = {
    **{"val_per_class": (1, None), "test_per_class": (1, None)},
    **{"seed": (0, 2**31), "jobs": (1, 1024), "threads": (1, 1024)},
}


@dataclass(frozen=True)
class Request:
    """Methods on a dataset under one protocol. Text is accepted for paths and numbers, one value for a sequence.

    Attributes
    ----------
    methods : registered names, or `all`
    ratios : imbalance ratios, or `natural`, the data as they are; none: the dataset's own
    trials : how many of each method, or their numbers, from 0; None: as many as the protocol has folds, else 5
    hyperparameters : values by `name`, for every method that has it, or by `method.name`
    plugins : files with further methods and datasets
    dataset, data_root, dataset_options : registered name or `auto`, its folder, values of its own options
    split, split_dir : `paper`, `lesion` or `official`; or the folder of published split files
    n_max : training images of the largest class, or `auto`; None: the dataset's
    common_test : nothing but the ratio may differ between ratios
    val_per_class, test_per_class : None: the dataset's
    allow_missing : use the images that are there
    per_lesion : how many images of a lesion validation and test may have, `all` or `one`
    preset, protocol : preset, None: the dataset's; and values of protocol fields (`PROTOCOL_CHANGES`) that differ
    seed : of the split and, plus the trial's number, of the trials
    device : `auto`, `cpu`, `cuda` or `cuda:N`
    gpus : numbers of the GPUs of this machine to use, also as text `0,1`, or `all`; None: one device, as `device` says
    executor : what schedules the trials: `local`, `ray`, `ray:ADDRESS`, `slurm`
    jobs : trials side by side on each device; None: one a CPU core, on GPUs as many as their memory takes
    threads : CPU threads of a trial; None: 1 on the CPU, the cores divided by `jobs` on a GPU
    checkpoint_seconds : the least time between two checkpoints within a stage; 0: one after every epoch
    out : results folder
    fresh : discard earlier results of these trials
    wandb, wandb_artifacts : mode of the W&B mirror, and whether it gets predictions and pictures

    Raises
    ------
    UserError : a value that is of the wrong kind or out of range, whatever the data are
    """

    methods: Sequence[str] = ("flex",)
    ratios: Sequence[Ratio] = ()
    trials: int | Sequence[int] | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    plugins: Sequence[Path] = ()
    dataset: str = "auto"
    data_root: Path | None = None
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    split_dir: Path | None = None
    n_max: int | Literal["auto"] | None = None
    common_test: bool = False
    val_per_class: int | None = None
    test_per_class: int | None = None
    allow_missing: bool = False
    per_lesion: str = "all"
    preset: str | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"
    gpus: Sequence[int] | Literal["all"] | None = None
    executor: str = "local"
    jobs: int | None = None
    threads: int | None = None
    checkpoint_seconds: float = 30.0
    out: Path = Path("results")
    fresh: bool = False
    wandb: str = "disabled"
    wandb_artifacts: bool = False

    def __post_init__(self) -> None:
        _check_kinds(self)
        normal: dict[str, Any] = {
            "methods": tuple(dict.fromkeys(_several(self.methods))),
            "ratios": ratio_values(self.ratios),
            "plugins": tuple(map(Path, _several(self.plugins))),
            "n_max": n_max_value(self.n_max),
            "gpus": _gpus(self.gpus),
            "protocol": _protocol_changes(self.protocol),
            "checkpoint_seconds": _seconds("--checkpoint-seconds", self.checkpoint_seconds),
            "out": Path(self.out),
        }
        folds = normal["protocol"].get("folds", 0)  # `Protocol` refuses a number out of range
        folds = folds if 1 < folds <= MAX_TRIALS else 0
        normal["trials"] = _trials((folds or 5) if self.trials is None else self.trials)
        normal |= {name: dict(getattr(self, name) or {}) for name in ("hyperparameters", "dataset_options")}
        for name in ("data_root", "split_dir"):
            value = getattr(self, name)
            normal[name] = None if value is None else Path(value)
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            normal[name] = None if value is None else _whole_number(f"--{name.replace('_', '-')}", value, low, high)
        for name, value in normal.items():
            object.__setattr__(self, name, value)
        if not self.methods:
            raise UserError("a request names at least one method")
        if self.wandb not in MODES:
            raise unknown("--wandb mode", self.wandb, MODES)
        if self.wandb_artifacts and self.wandb == "disabled":
            raise UserError("--wandb-artifacts needs --wandb online or offline")
        if folds:
            _check_folds(self, folds)

    @property
    def elsewhere(self) -> bool:
        """Whether its trials may run on other machines than the one that plans them."""
        return self.executor != "local"

    @property
    def trial_numbers(self) -> tuple[int, ...]:
        """Numbers of the trials."""
        return tuple(range(self.trials)) if isinstance(self.trials, int) else tuple(self.trials or ())

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as JSON and YAML keep them: `Request(**request.as_dict())` is the same request."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}


def _check_folds(request: Request, folds: int) -> None:
    """Refuse what folds leave no choice of.

    Raises
    ------
    UserError : another number of trials, test images a class, or splits that vary
    """
    if isinstance(request.trials, int) and request.trials != folds:
        raise UserError(f"--folds {folds} has a trial for each fold, not --trials {request.trials}; leave --trials out")
    if max(request.trial_numbers) >= folds:
        raise UserError(f"--folds {folds} has the trials 0 to {folds - 1}, got --trial {max(request.trial_numbers)}")
    if request.test_per_class is not None:
        raise UserError("--folds tests every image once; leave --test-per-class out")
    if request.protocol.get("vary_split"):
        raise UserError("--folds draws the splits of its trials; leave --vary-split out")


def _check_kinds(request: Request) -> None:
    """Refuse values of the wrong kind, as a file or a program may give them.

    Raises
    ------
    UserError : a truth value, a text, a path or a mapping that is none
    """
    kinds: tuple[tuple[tuple[str, ...], tuple[type, ...], str], ...] = (
        (("common_test", "allow_missing", "fresh", "wandb_artifacts"), (bool,), "true or false"),
        (("dataset", "device", "executor", "wandb", "per_lesion"), (str,), "text"),
        (("preset", "split"), (str, type(None)), "text"),
        (("out",), (str, Path), "a path"),
        (("data_root", "split_dir"), (str, Path, type(None)), "a path"),
        (("hyperparameters", "dataset_options", "protocol"), (Mapping, type(None)), "names with values"),
    )
    for names, allowed, what in kinds:
        for name in names:
            value = getattr(request, name)
            if not isinstance(value, allowed):
                raise UserError(f"{name} of a request must be {what}, got {value!r}")
    for name in ("hyperparameters", "dataset_options", "protocol"):
        for key in getattr(request, name) or {}:
            if not isinstance(key, str):
                raise UserError(f"{name} of a request has the key {key!r}, which is no text")
    for method in _several(request.methods):
        if not isinstance(method, str):
            raise UserError(f"methods of a request must be names, got {method!r}")
    for path in _several(request.plugins):
        if not isinstance(path, str | Path):
            raise UserError(f"plugins of a request must be paths, got {path!r}")
    for path in (request.out, request.data_root, request.split_dir, *_several(request.plugins)):
        if isinstance(path, str) and not path.strip():
            raise UserError("a path of a request must not be empty; leave it out, or name a file or folder")


def ratio_values(ratios: Any) -> tuple[Ratio, ...]:
    """Return imbalance ratios as numbers or `natural`, each once; None means none.

    Raises
    ------
    UserError : a ratio that is no number of at least 1
    """
    values: list[Ratio] = []
    for each in _several(ratios):
        if each == NATURAL:
            values.append("natural")
            continue
        try:
            ratio = float("true or false" if isinstance(each, bool) else each)
        except (TypeError, ValueError):
            raise UserError(f"--ratio must be a number or natural, got {each!r}") from None
        if not 1 <= ratio < math.inf:
            raise UserError(f"--ratio must be at least 1 and finite, got {each}")
        values.append(ratio)
    return tuple(dict.fromkeys(values))


def n_max_value(value: Any) -> int | Literal["auto"] | None:
    """Return what a size of the largest class means: a number, `auto`, or None for the dataset's.

    Raises
    ------
    UserError : anything else
    """
    if value is None or value == "auto":
        return value
    if not str(value).isdecimal() or int(value) < 1:
        raise UserError(f"--n-max must be a whole number of at least 1 or auto, got {value!r}")
    return int(value)


def _gpus(value: Any) -> tuple[int, ...] | Literal["all"] | None:
    if value is None or value == "all":
        return value
    numbers = value.split(",") if isinstance(value, str) else _several(value)
    if not numbers or not all(str(each).isdecimal() for each in numbers):
        raise UserError(f"--gpus must be numbers from 0 with commas between them, or all, got {value!r}")
    return tuple(dict.fromkeys(map(int, numbers)))


def read_request(path: Path) -> dict[str, Any]:
    """Return the fields of a request that a YAML or JSON file holds; of a trial's `config.json`, those of that trial.

    Relative paths of plug-ins and data are relative to the file's folder; `out` is relative to the working folder.

    Raises
    ------
    UserError : the file is missing or not readable, or has a key that no request has
    """

    try:
        text = require_regular(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path} is not readable ({error})") from error
    import yaml

    try:
        read = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"--config {path} is neither YAML nor JSON ({_where(error)})") from error
    if isinstance(read, dict) and isinstance(read.get("request"), dict):
        if "schema" not in read:
            raise UserError(f"--config {path} has a request inside; only a trial's config.json has, see --save-config")
        read = read["request"]
    if not isinstance(read, dict):
        raise UserError(f"--config {path} must hold names with values, as --save-config writes them")
    known = [each.name for each in fields(Request)]
    for key in read:
        if key not in known:
            raise unknown(f"key in {path}", str(key), known)
    return read | _in_folder(path.resolve().parent, read)


def write_request(path: Path, request: Request) -> None:
    """Write a request as JSON, where the file is called so, else as YAML; paths of plug-ins and data are absolute."""
    import yaml

    held = request.as_dict()
    held |= _in_folder(Path.cwd(), held)
    text = json.dumps(held, indent=1) + "\n" if path.suffix == ".json" else yaml.safe_dump(held, sort_keys=False)
    write_bytes(path, text.encode())


def _in_folder(folder: Path, held: Mapping[str, Any]) -> dict[str, Any]:
    """Return the paths among a request's fields that name what is read, relative ones made absolute from a folder.

    Values of another kind are left out: `Request` refuses them.
    """
    single = {name: held.get(name) for name in ("data_root", "split_dir")}
    placed: dict[str, Any] = {name: str(folder / path) for name, path in single.items() if isinstance(path, str)}
    plugins = _several(held.get("plugins"))
    if plugins and all(isinstance(path, str) for path in plugins):
        placed["plugins"] = [str(folder / path) for path in plugins]
    protocol = held.get("protocol")
    weights = protocol.get("weights") if isinstance(protocol, Mapping) else None
    if isinstance(weights, str) and weights.startswith("file:"):
        path = folder / Path(weights.removeprefix("file:")).expanduser()
        placed["protocol"] = {**held["protocol"], "weights": f"file:{path}"}
    return placed


def _where(error: Exception) -> str:
    """Return what a parser found wrong and where, in one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark and problem else str(error)


def _several(value: Any) -> Sequence[Any]:
    """Return one value as a sequence, several as they are, None as none."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else (value,)


def _trials(value: Any) -> int | tuple[int, ...]:
    if isinstance(value, Iterable) and not isinstance(value, str):
        numbers = {_whole_number("--trial", each, 0, MAX_TRIALS - 1) for each in value}
        if not numbers:
            raise UserError("--trial needs at least one number")
        return tuple(sorted(numbers))
    return _whole_number("--trials", value, 1, MAX_TRIALS)


def _whole_number(option: str, value: Any, low: int, high: int | None) -> int:
    allowed = f"at least {low}" if high is None else f"from {low} to {high}"
    try:
        number = int(value)
        right = not isinstance(value, bool) and float(value) == number and low <= number
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{option} must be a whole number, {allowed}, got {value!r}") from None
    if not right or (high is not None and number > high):
        raise UserError(f"{option} must be {allowed}, got {value}")
    return number


def _seconds(option: str, value: Any) -> float:
    try:
        seconds = float("true or false" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"{option} must be a number of seconds, at least 0 and finite, got {value!r}")
    return seconds


def _protocol_changes(changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return changes of the protocol in the types of its fields; YAML, for example, reads 3e-4 as text."""
    kinds = {"int": int, "float": float, "str": str}
    given, typed = dict(changes or {}), dict[str, Any]()
    if "pretrained" in given:  # of earlier versions
        given.setdefault("weights", published_weights(given.pop("pretrained")))
    for name, value in given.items():
        if name not in PROTOCOL_CHANGES:
            raise unknown("field of the protocol", name, PROTOCOL_CHANGES)
        kind, option = PROTOCOL_CHANGES[name], f"--{name.replace('_', '-')}"
        if value is None or (kind == "bool" and isinstance(value, bool)):
            typed[name] = value
            continue
        try:
            if isinstance(value, bool) or (kind == "int" and float(value) != int(value)):
                raise ValueError
            typed[name] = kinds[kind](value)
        except (KeyError, TypeError, ValueError, OverflowError):
            what = {"int": "a whole number", "float": "a number", "bool": "true or false"}[kind]
            raise UserError(f"{option} must be {what}, got {value!r}") from None
    return {name: value for name, value in typed.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
