"""Which trials a request means: methods with their hyper-parameters, datasets, protocol, folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ltbench.benchmarks.analysis.metrics import frequency_groups
from ltbench.benchmarks.analysis.records import SCHEMA, DataDescription, SharedImages
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.datasets.images.augmentation import stored_size
from ltbench.datasets.images.store import store_folder
from ltbench.datasets.loading import SplitDataset
from ltbench.errors import UserError
from ltbench.files import json_digest
from ltbench.methods import configure, registry


@dataclass(frozen=True)
class TrialSpec:
    """Everything that a trial depends on.

    Attributes
    ----------
    data : what records say of the data: dataset, title, ratio, split, notes, groups, and a digest of the pixels
    method, hyperparameters : name and all values
    changed : the hyper-parameters that differ from the preset's defaults
    plugin : SHA-256 of the method's file where it is a plug-in
    protocol : with precision resolved
    trial : number, from 0
    folder : of the trial; its parent holds the split's manifest
    split_digest : SHA-256 of that manifest
    store : folder of the image store
    cache : folder of shared stages
    device : name of the device
    threads : CPU threads
    plugins : files to import before the method is known
    wandb, wandb_artifacts : whether W&B mirrors the trial, a mode of `wandb_mirror`, and with its predictions
    """

    data: DataDescription
    method: str
    hyperparameters: Mapping[str, Any]
    changed: Mapping[str, Any]
    plugin: str | None
    protocol: Protocol
    trial: int
    folder: Path
    split_digest: str
    store: Path
    cache: Path
    device: str
    threads: int
    plugins: tuple[Path, ...] = ()
    wandb: str = "disabled"
    wandb_artifacts: bool = False

    @property
    def label(self) -> str:
        """Name of the trial in messages."""
        return f"{self.method} r{self.data.ratio:g} trial {self.trial}"

    def config(self) -> dict[str, Any]:
        """Return what `config.json` keeps: all that the numbers depend on but the machine."""
        return {
            "schema": SCHEMA,
            **self.data.to_json(),
            "method": self.method,
            "hyperparameters": dict(self.hyperparameters),
            "changed": dict(self.changed),
            "plugin": self.plugin,
            "trial": self.trial,
            "seed": self.protocol.seed + self.trial,
            "protocol": asdict(self.protocol),
            "protocol_digest": self.protocol.digest(),
            "split_digest": self.split_digest,
        }


@dataclass(frozen=True)
class ConfiguredMethod:
    """A method with all its hyper-parameters.

    Attributes
    ----------
    name : registered name
    hyperparameters : all values
    changed : those that differ from the preset's defaults
    """

    name: str
    hyperparameters: Mapping[str, Any]
    changed: Mapping[str, Any]


def configure_methods(
    names: Sequence[str], overrides: Mapping[str, Any], protocol: Protocol, datasets: Sequence[SplitDataset]
) -> list[ConfiguredMethod]:
    """Return the methods with the preset's defaults and the overrides.

    An override `name` goes to every method that knows it, `method.name` to one method alone.

    Raises
    ------
    UserError : an override that no method knows, of the wrong type or out of range, or a method that refuses a dataset
    """
    classes = {name: registry.get(name) for name in names}
    declared = {name: {field.name for field in fields(cls.Config)} for name, cls in classes.items()}
    scoped = {key for key in overrides if key.partition(".")[0] in classes and "." in key}
    nobodys = {key for key in overrides if key not in scoped and not any(key in own for own in declared.values())}
    configured = []
    for name, cls in classes.items():
        given = {key: value for key, value in overrides.items() if key in declared[name] | nobodys}
        given |= {key.partition(".")[2]: overrides[key] for key in scoped if key.partition(".")[0] == name}
        config, default = (configure(name, cls.Config, protocol.preset, values) for values in (given, {}))
        for dataset in datasets:
            try:
                cls.check(config, dataset.class_counts)
            except ValueError as error:
                raise UserError(f"{name} at ratio {dataset.ratio:g}: {error}") from error
        values, defaults = asdict(config), asdict(default)
        changed = {key: value for key, value in values.items() if value != defaults[key]}
        configured.append(ConfiguredMethod(name, values, changed))
    return configured


def trial_specs(
    dataset: SplitDataset,
    method: ConfiguredMethod,
    protocol: Protocol,
    *,
    trials: int,
    out: Path,
    device: str = "cpu",
    threads: int = 1,
    plugins: Sequence[Path] = (),
    wandb: str = "disabled",
    wandb_artifacts: bool = False,
) -> list[TrialSpec]:
    """Return the trials of one method on one dataset, under `<out>/<dataset>-<split>-r<ratio>/<method>-<hash>/`.

    The hash stands for everything that the numbers depend on: hyper-parameters, protocol, split, and the text of a
    plug-in.
    """
    source = dataset.source
    identity = {
        "method": method.name,
        "hyperparameters": dict(method.hyperparameters),
        "protocol": protocol.digest(),
        "split": dataset.manifest.digest,
        "plugin": registry.source_digest(method.name),
        "dataset": [source.name, source.variant, source.revision],
    }
    setting = f"{source.name}-{dataset.split}-r{dataset.ratio:g}"
    folder = out / setting / f"{method.name}-{json_digest(identity)[:8]}"
    return [
        TrialSpec(
            data=described(dataset),
            method=method.name,
            hyperparameters=method.hyperparameters,
            changed=method.changed,
            plugin=identity["plugin"],
            protocol=protocol,
            trial=trial,
            folder=folder / f"trial{trial}",
            split_digest=dataset.manifest.digest,
            store=store_folder(source, stored_size(protocol.image_size), dataset.cache),
            cache=out / "cache" / "stages",
            device=device,
            threads=threads,
            plugins=tuple(path.resolve() for path in plugins),
            wandb=wandb,
            wandb_artifacts=wandb_artifacts,
        )
        for trial in range(trials)
    ]


def described(dataset: SplitDataset) -> DataDescription:
    """Return what records say of the data, but for the pixels, which are not known before they are decoded."""
    source, counts = dataset.source, dataset.class_counts.tolist()
    groups = source.groups or frequency_groups(counts)
    return DataDescription(
        dataset=source.name,
        variant=source.variant,
        title=source.title,
        licence=source.licence,
        citation=source.citation,
        split=dataset.split,
        ratio=float(dataset.ratio),
        natural=dataset.natural,
        class_names=tuple(source.class_names),
        class_counts=tuple(counts),
        groups={name: tuple(members) for name, members in groups.items()},
        overlap={pair: SharedImages(**shared) for pair, shared in dataset.overlap.as_dict().items()},
        special_classes=source.special_classes,
        notes=tuple(dataset.notes),
    )
