"""A finished trial, opened to use its network: the record, checked, and its method at the weights that were tested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ltbench.benchmarks.analysis.records import Record
from ltbench.benchmarks.training.device import place
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stages.backbones import Backbones, ForwardCounter
from ltbench.benchmarks.training.trial import build_method
from ltbench.errors import UserError
from ltbench.files import read_json
from ltbench.methods import registry
from ltbench.methods.base import Method
from ltbench.registry import load_plugin


def opened(folder: Path) -> Record:
    """Return the record of a finished trial's folder.

    Raises
    ------
    UserError : no folder of a finished trial, or a record that is corrupt or of another schema
    """
    if not (folder / "result.json").exists():
        inside = sorted(path.parent for path in folder.glob("*/result.json")) if folder.is_dir() else []
        advice = f"did you mean {inside[0]}?" if inside else "give results/<setting>/<method>-<hash>/trial<k>"
        raise UserError(f"{folder} is no folder of a finished trial; {advice}")
    return Record.read(folder)


def trained_method(record: Record, device: torch.device) -> tuple[Method, Protocol]:
    """Return the method of a trial with the weights of the epoch that it reports, and its protocol.

    Raises
    ------
    UserError : weights that are missing, corrupt, altered or of another version of the method; a plug-in that is
        missing or has changed
    """
    result = record.result
    cls = _class_of(record)
    protocol = Protocol.from_json(result.protocol)
    try:
        values = {name: tuple(own) if isinstance(own, list) else own for name, own in result.hyperparameters.items()}
        method = build_method(
            cls,
            cls.Config(**values),
            protocol,
            np.asarray(result.data.class_counts),
            result.seed,
            class_names=result.data.class_names,
            backbones=_UncountedBackbones(replace(protocol.without_weights(), frozen_features=False), result.seed),
        )
        method.load_state_dict(record.model())
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{record.folder} was trained by {result.code_version}, whose {result.method} this version cannot build "
            f"({reason}); use that version"
        ) from error
    place(method, device)
    return method, protocol


class _Uncounted(ForwardCounter):
    """Counts nothing, so that networks have no hooks and can be traced."""

    def watch(self, network: nn.Module) -> None:
        pass

    def watch_all(self, method: nn.Module) -> None:
        pass


class _UncountedBackbones(Backbones):
    def __init__(self, protocol: Protocol, seed: int) -> None:
        super().__init__(protocol, seed)
        self.counter = _Uncounted()


def _class_of(record: Record) -> type[Method]:
    """Return the class of a trial's method; the file of a plug-in is run."""
    name, digest = record.result.method, record.result.plugin
    if name not in registry.available():
        for path in _plugin_files(record):
            load_plugin(path)
    cls = registry.get(name)
    if registry.source_digest(name) != digest:
        known = "a method of ltbench" if digest is None else f"a plug-in of the SHA-256 {digest[:12]}…"
        raise UserError(f"{record.folder} was trained with {name}, {known}, and what is registered here is not that")
    return cls


def _plugin_files(record: Record) -> list[Path]:
    """Return the files of plug-ins that a trial was run with, those that the record names.

    Raises
    ------
    UserError : the record does not name one, or it is missing
    """
    name = record.result.method
    if record.result.plugin is None or not record.path("config.json").exists():
        raise UserError(f"{record.folder}: the method {name} is not known here; give its file with --plugin")
    request = read_json(record.verified("config.json")).get("request", {})
    files = [Path(path) for path in request.get("plugins", ())]
    missing = [path for path in files if not path.is_file()]
    if missing or not files:
        where = f"{missing[0]} is missing" if missing else "the record names no file"
        raise UserError(f"{record.folder}: {name} is a plug-in, and {where}; give its file with --plugin")
    return files
