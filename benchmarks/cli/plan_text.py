"""What a plan says before its trials run: data, split, protocol, trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from ltbench.benchmarks.training.protocol import PRESETS, Protocol
from ltbench.datasets.images.augmentation import Augmentation
from ltbench.errors import at_most, counted

if TYPE_CHECKING:
    from ltbench.benchmarks.training.planning.plan import Plan

_SHOWN = {
    *("preset", "seed", "backbone", "weights_sha256", "image_size", "precision"),
    *("optimizer", "lr", "batch_size", "epochs", "patience", "vary_split", "folds", "augmentation"),
}


def plan_text(planned: Plan) -> str:
    """Return the lines that describe a plan; a field of the protocol that is not among them is as in its preset."""
    from ltbench.benchmarks.analysis.record_files.damage import is_sound
    from ltbench.benchmarks.training.trial import is_done

    lines = [f"data: {planned.datasets[0].source.title}"]
    for dataset in planned.datasets:
        lines.append(f"ratio {dataset.ratio:g}, split {dataset.split} ({dataset.manifest.digest[:8]})")
        lines += [f"  {line}" for line in dataset.lines()]
    if planned.protocol.vary_split:
        lines.append("  each trial draws a split of its own, by its own seed; this is that of trial 0")
    if planned.protocol.folds:
        lines.append(f"  trial k tests on fold k of {planned.protocol.folds}; this is the split of fold 0")
    protocol, folders = planned.protocol, planned.trial_folders()
    if planned.request.preset is None:
        others = " or ".join(name for name in PRESETS if name != protocol.preset)
        default = f"the default of dataset {planned.datasets[0].source.name}"
        lines.append(f"preset {protocol.preset}: {default}; others: --preset {others}, see --list")
    lines.append(f"protocol {protocol.preset} ({protocol.digest()[:8]}): {protocol_text(protocol)}")
    if protocol.tune != "full" and protocol.weights == "none":
        lines.append("  what is not trained of the network stays at random weights; --weights gives it others")
    ended = [] if planned.request.fresh else [folder for folder in folders if is_done(folder)]
    done = sum(map(is_sound, ended))
    damaged = len(ended) - done
    progress = "".join(f", {count} {what}" for count, what in ((done, "done"), (damaged, "damaged")) if count)
    executor = planned.request.executor
    scheduled = f"executor {executor}" if planned.request.elsewhere else f"{planned.jobs} side by side"
    lines.append(f"{counted(len(folders), 'trial')}{progress}; {planned.device}, {scheduled}")
    return "\n".join(lines)


def protocol_text(protocol: Protocol) -> str:
    """Return the fields that every protocol names, then those others that differ from its preset's."""
    preset = PRESETS[protocol.preset]
    named = [
        protocol.backbone,
        f"{protocol.image_size} px",
        protocol.precision,
        f"{protocol.optimizer} {protocol.lr:g}",
        f"batch {protocol.batch_size}",
        at_most(protocol.epochs, "epoch"),
        f"patience {protocol.patience}",
    ]
    changed = _changed(protocol, preset, [each.name for each in fields(Protocol) if each.name not in _SHOWN])
    drawn = _changed(protocol.augmentation, preset.augmentation, [each.name for each in fields(Augmentation)])
    return ", ".join([*named, *changed, *(f"augmentation {each}" for each in drawn)])


def _changed(values: Protocol | Augmentation, usual: Protocol | Augmentation, names: Sequence[str]) -> list[str]:
    """Return the names and the values of those fields that are not as usual."""
    changed = [name for name in names if getattr(values, name) != getattr(usual, name)]
    return [f"{name.replace('_', ' ')} {getattr(values, name)}" for name in changed]
