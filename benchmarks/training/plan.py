"""What a request means: datasets, methods and protocol, read from tables alone; then its trials, ready to be run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltbench.benchmarks.analysis.metrics import frequency_groups
from ltbench.benchmarks.analysis.records import DataDescription, SharedImages
from ltbench.benchmarks.training import wandb_mirror
from ltbench.benchmarks.training.protocol import Protocol, protocol_for
from ltbench.benchmarks.training.request import PROTOCOL_CHANGES, Ratio, Request
from ltbench.datasets import registry as dataset_registry
from ltbench.datasets.loading import SplitDataset, largest_common_n_max, load, require_common_test, resolve
from ltbench.errors import UserError
from ltbench.files import json_digest
from ltbench.methods import available, configure, registry
from ltbench.processes import available_cores, preload
from ltbench.registry import load_plugin, unknown

if TYPE_CHECKING:
    import torch

    from ltbench.benchmarks.training.trial_spec import TrialSpec


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


@dataclass(frozen=True)
class PlannedRow:
    """One method on one dataset: a row of a leaderboard, before its trials are run.

    Attributes
    ----------
    folder : of its trials
    """

    dataset: SplitDataset
    method: ConfiguredMethod
    folder: Path

    def trial_folder(self, trial: int) -> Path:
        """Return the folder of one trial."""
        return self.folder / f"trial{trial}"


@dataclass(frozen=True)
class Plan:
    """A request with everything resolved that the data's tables and this machine decide.

    Attributes
    ----------
    datasets : one a ratio
    protocol : with precision resolved
    jobs : trials side by side
    threads : CPU threads of a trial
    """

    request: Request
    datasets: Sequence[SplitDataset]
    methods: Sequence[ConfiguredMethod]
    protocol: Protocol
    device: torch.device
    jobs: int
    threads: int

    @cached_property
    def rows(self) -> tuple[PlannedRow, ...]:
        """Every method on every dataset, under `<out>/<dataset>-<split>-r<ratio>/<method>-<hash>/`."""
        return tuple(
            PlannedRow(dataset, method, _row_folder(self.request.out, dataset, method, self.protocol))
            for dataset in self.datasets
            for method in self.methods
        )

    def trial_folders(self) -> list[Path]:
        """Return the folders of all trials."""
        return [row.trial_folder(trial) for row in self.rows for trial in self.request.trial_numbers]

    def specs(self, pixels: Mapping[str, str]) -> list[TrialSpec]:
        """Return all trials.

        Parameters
        ----------
        pixels : SHA-256 of the pixels of each split, by the digest of its manifest
        """
        from ltbench.benchmarks.training.trial_spec import TrialSpec

        digests = [dataset.manifest.digest for dataset in self.datasets]
        data = {
            digest: described(dataset, pixels[digest]) for digest, dataset in zip(digests, self.datasets, strict=True)
        }
        request = self.request
        return [
            TrialSpec(
                data=data[row.dataset.manifest.digest],
                method=row.method.name,
                hyperparameters=row.method.hyperparameters,
                changed=row.method.changed,
                plugin=registry.source_digest(row.method.name),
                protocol=self.protocol,
                trial=trial,
                folder=row.trial_folder(trial),
                split_digest=row.dataset.manifest.digest,
                store=row.dataset.store_builder.folder,
                cache=request.out / "cache" / "stages",
                device=str(self.device),
                threads=self.threads,
                request=self._request_of(row, trial).as_dict(),
                plugins=tuple(path.resolve() for path in request.plugins),
                wandb=request.wandb,
                wandb_artifacts=request.wandb_artifacts,
            )
            for row in self.rows
            for trial in request.trial_numbers
        ]

    def _request_of(self, row: PlannedRow, trial: int) -> Request:
        """Return the request for one trial, with which it can be run again, elsewhere and by later versions."""
        request, source = self.request, row.dataset.source
        return Request(
            methods=(row.method.name,),
            ratios=("natural" if row.dataset.natural else row.dataset.ratio,),
            trials=(trial,),
            hyperparameters=row.method.hyperparameters,
            plugins=tuple(path.resolve() for path in request.plugins),
            dataset=source.name,
            data_root=source.root and source.root.resolve(),
            dataset_options=request.dataset_options,
            split=None if request.split_dir else row.dataset.split,
            split_dir=request.split_dir and request.split_dir.resolve(),
            n_max=row.dataset.n_max,
            val_per_class=row.dataset.val_per_class,
            test_per_class=row.dataset.test_per_class,
            allow_missing=request.allow_missing,
            preset=self.protocol.preset,
            protocol={name: getattr(self.protocol, name) for name in PROTOCOL_CHANGES},
            seed=request.seed,
            threads=self.threads,
        )


def plan(request: Request, *, run_next: bool = False) -> Plan:
    """Return what a request means; reads the data's tables, writes nothing.

    Parameters
    ----------
    run_next : whether its trials are run after that, so that worker processes import what they need meanwhile

    Raises
    ------
    UserError : anything that the user can fix
    """
    if run_next and request.jobs != 1 and not request.device.startswith("cuda"):
        preload(["ltbench.benchmarks.executors.local"])
    return _Planner(request).plan()


class _Planner:
    """Resolves a request: names first, then the data's tables, then what needs torch; so that errors come early."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def plan(self) -> Plan:
        request = self.request
        for plugin in request.plugins:
            load_plugin(plugin)
        methods = method_names(request.methods)
        wandb_mirror.require(request.wandb)
        name, root = resolve(request.dataset, request.data_root)
        preset = request.preset or dataset_registry.get(name).preset
        protocol = protocol_for(preset, seed=request.seed, **request.protocol)
        datasets = self._datasets(name, root, protocol.image_size)
        # Torch is imported from here on: what is wrong with names, numbers and tables has been said by now.
        configure_methods(methods, request.hyperparameters, protocol, ())  # before a network is built, which takes long
        from ltbench.benchmarks.training.device import resolve_device, resolve_precision
        from ltbench.benchmarks.training.stages.backbones import check_backbone

        device = resolve_device(request.device)
        protocol = replace(check_backbone(protocol), precision=resolve_precision(protocol.precision, device))
        jobs = self._jobs(methods, device)
        return Plan(
            request=request,
            datasets=datasets,
            methods=configure_methods(methods, request.hyperparameters, protocol, datasets),
            protocol=protocol,
            device=device,
            jobs=jobs,
            threads=request.threads or (max(1, available_cores() // jobs) if device.type == "cuda" else 1),
        )

    def _datasets(self, name: str, root: Path | None, image_size: int) -> list[SplitDataset]:
        def split(ratio: Ratio | None, n_max: Any = self.request.n_max) -> SplitDataset:
            return load(
                name,
                root=root,
                ratio=ratio,
                image_size=image_size,
                split=self.request.split,
                split_dir=self.request.split_dir,
                n_max=n_max,
                val_per_class=self.request.val_per_class,
                test_per_class=self.request.test_per_class,
                seed=self.request.seed,
                allow_missing=self.request.allow_missing,
                cache=self.request.out / "cache" / "images",
                options=self.request.dataset_options,
            )

        datasets = [split(ratio) for ratio in self.request.ratios or (None,)]
        if self.request.common_test:
            automatic = [dataset for dataset in datasets if dataset.n_max == "auto"]
            if automatic:
                common = largest_common_n_max(automatic)
                datasets = [split(each.ratio, common) if each.n_max == "auto" else each for each in datasets]
            require_common_test(datasets)
        return datasets

    def _jobs(self, methods: Sequence[str], device: torch.device) -> int:
        """Return how many trials run side by side; a method of the main program is known to this process alone."""
        local = [name for name in methods if not registry.is_portable(name)]
        if local and (self.request.jobs or 1) > 1:
            raise UserError(
                f"method {local[0]} is registered by the program itself, which worker processes do not import; "
                "give its file as a plug-in, or use --jobs 1"
            )
        if self.request.jobs or local:
            return self.request.jobs or 1
        trials = len(methods) * max(1, len(self.request.ratios)) * len(self.request.trial_numbers)
        return 1 if device.type == "cuda" else max(1, min(available_cores(), trials))


def prepare(planned: Plan) -> list[TrialSpec]:
    """Write what the trials of a plan share, manifests and decoded images; return the trials.

    Raises
    ------
    UserError : the results folder is not writable, or an image is missing or corrupt
    """
    out = planned.request.out
    if out.exists() and not out.is_dir():
        raise UserError(f"results folder {out} is a file; give another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"results folder {out} cannot be made ({error.strerror}); give another --out") from error
    if not os.access(out, os.W_OK):
        raise UserError(f"results folder {out} is not writable; give another --out")
    for row in planned.rows:
        if not (row.folder / "split.csv").exists():
            row.folder.mkdir(parents=True, exist_ok=True)
            row.dataset.manifest.write(row.folder / "split.csv")
    stores = {dataset.manifest.digest: dataset for dataset in planned.datasets}
    options: dict[str, Any] = {"workers": available_cores(), "quiet": False, "trust": not planned.request.fresh}
    pixels = {digest: dataset.store(**options).digest(dataset.manifest.ids) for digest, dataset in stores.items()}
    return planned.specs(pixels)


def described(dataset: SplitDataset, pixels: str = "") -> DataDescription:
    """Return what records say of the data.

    Parameters
    ----------
    pixels : SHA-256 of the pixels of the split's images; empty where they are not decoded yet
    """
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
        overlap={
            f"{pair.first}/{pair.second}": SharedImages(pair.images, pair.lesion_images, pair.total)
            for pair in dataset.overlap.pairs
        },
        special_classes=source.special_classes,
        notes=tuple(dataset.notes),
        pixels=pixels,
    )


def method_names(names: Sequence[str]) -> list[str]:
    """Return registered methods by name, `all` being every one of them.

    Raises
    ------
    UserError : an unknown name
    """
    known = available()
    for name in names:
        if name != "all" and name not in known:
            raise unknown("method", name, ["all", *known])
    return known if "all" in names else list(dict.fromkeys(names))


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
    declared = {name: set(cls.Config.__dataclass_fields__) for name, cls in classes.items()}
    scoped = {key for key in overrides if key.partition(".")[0] in classes and "." in key}
    nobodys = {key for key in overrides if key not in scoped and not any(key in own for own in declared.values())}
    configured = []
    for name, cls in classes.items():
        given = {key: value for key, value in overrides.items() if key in declared[name] | nobodys}
        given |= {key.partition(".")[2]: overrides[key] for key in scoped if key.partition(".")[0] == name}
        default = configure(name, cls.Config, protocol.preset, {})
        config = configure(name, cls.Config, protocol.preset, given) if given else default
        for dataset in datasets:
            try:
                cls.check(config, dataset.class_counts)
            except ValueError as error:
                raise UserError(f"{name} at ratio {dataset.ratio:g}: {error}") from error
            except Exception as error:
                if registry.source_digest(name) is None:
                    raise
                what = f"{type(error).__name__}: {error}"
                raise UserError(f"{name} at ratio {dataset.ratio:g}: its check raised {what}") from error
        values, defaults = asdict(config), asdict(default)
        changed = {key: value for key, value in values.items() if value != defaults[key]}
        configured.append(ConfiguredMethod(name, values, changed))
    return configured


def _row_folder(out: Path, dataset: SplitDataset, method: ConfiguredMethod, protocol: Protocol) -> Path:
    """Return the folder of a row.

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
    return out / f"{source.name}-{dataset.split}-r{dataset.ratio:g}" / f"{method.name}-{json_digest(identity)[:8]}"
