"""What a request means: datasets, methods and protocol, read from tables alone; then its trials, ready to be run."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltbench.benchmarks.analysis.record_files.description import DataDescription
from ltbench.benchmarks.training import wandb_mirror
from ltbench.benchmarks.training.planning.data import described, planned_datasets
from ltbench.benchmarks.training.protocol import Protocol, protocol_for
from ltbench.benchmarks.training.request import PROTOCOL_CHANGES, Request
from ltbench.datasets import registry as dataset_registry
from ltbench.datasets.loading import SplitDataset, resolve
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
    dataset : under the split of trial 0
    drawn : the dataset under the split of each trial, where each draws its own
    folder : of its trials
    """

    dataset: SplitDataset
    method: ConfiguredMethod
    folder: Path
    drawn: Mapping[int, SplitDataset] = field(default_factory=dict)

    def trial_folder(self, trial: int) -> Path:
        """Return the folder of one trial."""
        return self.folder / f"trial{trial}"

    def dataset_of(self, trial: int) -> SplitDataset:
        """Return the dataset under the split of one trial."""
        return self.drawn.get(trial, self.dataset)

    def split_file(self, trial: int) -> Path:
        """Return the place of the manifest of a trial's split."""
        return (self.trial_folder(trial) if self.drawn else self.folder) / "split.csv"


@dataclass(frozen=True)
class Plan:
    """A request with everything resolved that the data's tables and this machine decide.

    Attributes
    ----------
    datasets : one a ratio, under the split of trial 0
    drawn : by trial, the same under the splits of that trial, where each draws its own
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
    drawn: Mapping[int, Sequence[SplitDataset]] = field(default_factory=dict)

    @property
    def deciding_threads(self) -> int:
        """CPU threads where numbers depend on them; 1 on a GPU, where they do not."""
        return self.threads if self.device.type == "cpu" else 1

    @cached_property
    def rows(self) -> tuple[PlannedRow, ...]:
        """Every method on every dataset, under `<out>/<dataset>-<split>-r<ratio>/<method>-<hash>/`."""
        return tuple(
            PlannedRow(
                dataset,
                method,
                _row_folder(self.request.out, dataset, method, self.protocol, self.deciding_threads),
                {trial: drawn[place] for trial, drawn in self.drawn.items()},
            )
            for place, dataset in enumerate(self.datasets)
            for method in self.methods
        )

    def trial_folders(self) -> list[Path]:
        """Return the folders of all trials."""
        return [row.trial_folder(trial) for row in self.rows for trial in self.request.trial_numbers]

    def splits(self) -> dict[str, SplitDataset]:
        """Return the splits that trials are run on, by the digests of their manifests."""
        every = [row.dataset_of(trial) for row in self.rows for trial in self.request.trial_numbers]
        return {dataset.manifest.digest: dataset for dataset in every}

    def described(self, row: PlannedRow, trial: int, pixels: str = "") -> DataDescription:
        """Return what records say of the data of a trial."""
        return described(row.dataset_of(trial), pixels, varied_from=row.dataset if self.protocol.vary_split else None)

    def specs(self, pixels: Mapping[str, str]) -> list[TrialSpec]:
        """Return all trials.

        Parameters
        ----------
        pixels : SHA-256 of the pixels of each split, by the digest of its manifest
        """
        from ltbench.benchmarks.training.trial_spec import TrialSpec

        request = self.request
        return [
            TrialSpec(
                data=self.described(row, trial, pixels[row.dataset_of(trial).manifest.digest]),
                method=row.method.name,
                hyperparameters=row.method.hyperparameters,
                changed=row.method.changed,
                plugin=registry.source_digest(row.method.name),
                protocol=self.protocol,
                trial=trial,
                folder=row.trial_folder(trial),
                split_file=row.split_file(trial),
                split_digest=row.dataset_of(trial).manifest.digest,
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
            per_lesion=request.per_lesion,
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
    if run_next and not request.elsewhere and request.jobs != 1 and not request.device.startswith("cuda"):
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
        given = request.preset
        preset = dataset_registry.get(name).preset if given is None else given
        protocol = protocol_for(preset, seed=request.seed, **request.protocol)
        datasets, drawn = planned_datasets(request, name, root, protocol)
        # Torch is imported from here on: what is wrong with names, numbers and tables has been said by now.
        configure_methods(methods, request.hyperparameters, protocol, ())  # before a network is built, which takes long
        from ltbench.benchmarks.training.device import resolve_device, resolve_precision
        from ltbench.benchmarks.training.stages.backbones import check_backbone

        device = resolve_device(request.device, elsewhere=request.elsewhere)
        precision = resolve_precision(protocol.precision, device)
        protocol = replace(check_backbone(protocol), precision=precision)
        jobs = self._jobs(methods, device)
        return Plan(
            request=request,
            datasets=datasets,
            methods=configure_methods(
                methods, request.hyperparameters, protocol, [*datasets, *itertools.chain(*drawn.values())]
            ),
            protocol=protocol,
            device=device,
            jobs=jobs,
            threads=request.threads or (max(1, available_cores() // jobs) if device.type == "cuda" else 1),
            drawn=drawn,
        )

    def _jobs(self, methods: Sequence[str], device: torch.device) -> int:
        """Return how many trials run side by side; a method of the main program is known to this process alone."""
        local = [name for name in methods if not registry.is_portable(name)]
        if local and (self.request.elsewhere or (self.request.jobs or 1) > 1):
            raise UserError(
                f"method {local[0]} is registered by the program itself, which worker processes do not import; "
                "give its file as a plug-in, or use --jobs 1 and --executor local"
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
        for trial in planned.request.trial_numbers:
            path = row.split_file(trial)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                row.dataset_of(trial).manifest.write(path)
    options: dict[str, Any] = {"workers": available_cores(), "quiet": False, "trust": not planned.request.fresh}
    splits = planned.splits().items()
    pixels = {digest: dataset.store(**options).digest(dataset.manifest.ids) for digest, dataset in splits}
    return planned.specs(pixels)


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
        if protocol.init != "scratch":
            _require_effect(name, cls.Config, changed, protocol.init)
        configured.append(ConfiguredMethod(name, values, changed))
    return configured


def _require_effect(name: str, config: Any, changed: Mapping[str, Any], init: str) -> None:
    """Refuse settings of a method's own pre-training where all methods start from a shared encoder."""
    idle = sorted(key for key in changed if config.__dataclass_fields__[key].metadata.get("pretraining"))
    if idle:
        raise UserError(
            f"{', '.join(idle)} of {name} would have no effect with --init {init}, whose encoder is the same for every "
            "method; leave one of them out"
        )


def _row_folder(out: Path, dataset: SplitDataset, method: ConfiguredMethod, protocol: Protocol, threads: int) -> Path:
    """Return the folder of a row.

    The hash stands for everything that the numbers depend on: hyper-parameters, protocol, split, the text of a
    plug-in, and the number of threads where it is not 1.
    """
    source = dataset.source
    name = row_folder_name(
        method.name,
        method.hyperparameters,
        registry.source_digest(method.name),
        protocol.digest(),
        dataset.manifest.digest,
        (source.name, source.variant, source.revision),
        threads,
    )
    return out / f"{source.name}-{dataset.split}-r{dataset.ratio:g}" / name


def row_folder_name(
    method: str,
    hyperparameters: Mapping[str, Any],
    plugin: str | None,
    protocol_digest: str,
    split_digest: str,
    dataset: tuple[str, str, int],
    threads: int,
) -> str:
    """Return the name of the folder of a row: its method, and a digest of all that its numbers depend on.

    Parameters
    ----------
    plugin : SHA-256 of the text of a method from outside the package
    split_digest : where each trial draws its own, that of trial 0
    dataset : name, variant, revision of its images
    threads : of a trial, where numbers depend on them
    """
    identity = {
        "method": method,
        "hyperparameters": dict(hyperparameters),
        "protocol": protocol_digest,
        "split": split_digest,
        "plugin": plugin,
        "dataset": list(dataset),
        **({"threads": threads} if threads > 1 else {}),
    }
    return f"{method}-{json_digest(identity)[:8]}"
