"""What a request means: datasets, methods and protocol, read from tables alone; then its trials, ready to be run."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltbench.benchmarks.analysis.record_files.description import DataDescription
from ltbench.benchmarks.training import wandb_mirror
from ltbench.benchmarks.training.planning.configured import ConfiguredMethod, configure_methods, method_names
from ltbench.benchmarks.training.planning.data import described, planned_datasets
from ltbench.benchmarks.training.protocol import Protocol, protocol_for
from ltbench.benchmarks.training.request import PROTOCOL_CHANGES, Request
from ltbench.datasets import registry as dataset_registry
from ltbench.datasets.loading import SplitDataset, resolve
from ltbench.errors import UserError
from ltbench.files import json_digest
from ltbench.methods import registry
from ltbench.processes import available_cores, preload
from ltbench.registry import load_plugin

if TYPE_CHECKING:
    import torch

    from ltbench.benchmarks.training.trial_spec import TrialSpec


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
    device : of the first trial; those of the others are of the same kind
    slots : device of each of the trials that run side by side
    threads : CPU threads of a trial
    """

    request: Request
    datasets: Sequence[SplitDataset]
    methods: Sequence[ConfiguredMethod]
    protocol: Protocol
    device: torch.device
    slots: Sequence[str]
    threads: int
    drawn: Mapping[int, Sequence[SplitDataset]] = field(default_factory=dict)

    @property
    def jobs(self) -> int:
        """Trials side by side."""
        return len(self.slots)

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
        return described(row.dataset_of(trial), pixels, varied_from=row.dataset if self.protocol.own_splits else None)

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
                checkpoint_seconds=request.checkpoint_seconds,
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
        _check_out(request.out)
        for plugin in request.plugins:
            load_plugin(plugin)
        methods = method_names(request.methods)
        wandb_mirror.require(request.wandb)
        name, root = resolve(request.dataset, request.data_root)
        given = request.preset
        if request.gpus is not None:
            self._devices()
        preset = dataset_registry.get(name).preset if given is None else given
        protocol = protocol_for(preset, seed=request.seed, **request.protocol)
        datasets, drawn = planned_datasets(request, name, root, protocol)
        # Torch is imported from here on: what is wrong with names, numbers and tables has been said by now.
        configure_methods(methods, request.hyperparameters, protocol, ())  # before a network is built, which takes long
        from ltbench.benchmarks.training.device import resolve_precision
        from ltbench.benchmarks.training.stages.backbones import check_backbone

        devices = self._devices()
        protocol = replace(check_backbone(protocol), precision=resolve_precision(protocol.precision, devices[0]))
        slots = self._slots(methods, devices, protocol, datasets)
        return Plan(
            request=request,
            datasets=datasets,
            methods=configure_methods(
                methods, request.hyperparameters, protocol, [*datasets, *itertools.chain(*drawn.values())]
            ),
            protocol=protocol,
            device=devices[0],
            slots=slots,
            threads=request.threads or (max(1, available_cores() // len(slots)) if devices[0].type == "cuda" else 1),
            drawn=drawn,
        )

    def _devices(self) -> list[torch.device]:
        from ltbench.benchmarks.training.device import resolve_devices

        return resolve_devices(self.request.device, self.request.gpus, elsewhere=self.request.elsewhere)

    def _slots(
        self,
        methods: Sequence[str],
        devices: Sequence[torch.device],
        protocol: Protocol,
        datasets: Sequence[SplitDataset],
    ) -> tuple[str, ...]:
        """Return the device of each of the trials that run side by side.

        A method of the main program is known to this process alone.
        """
        from ltbench.benchmarks.training.planning.placement import DeviceMemory, free_memory, needed_memory, placed

        request = self.request
        local = [name for name in methods if not registry.is_portable(name)]
        if local and (request.elsewhere or (request.jobs or 1) > 1 or len(devices) > 1):
            raise UserError(
                f"method {local[0]} is registered by the program itself, which worker processes do not import; "
                "give its file as a plug-in, or use --jobs 1, at most one GPU and --executor local"
            )
        jobs = 1 if local else request.jobs
        memory = [DeviceMemory(str(device), None) if request.elsewhere else free_memory(device) for device in devices]
        needed = needed_memory(protocol, datasets, request.out) if jobs is None and memory[0].free is not None else 0
        trials = len(methods) * len(datasets) * len(request.trial_numbers)
        return placed(memory, trials=trials, jobs=jobs, cores=available_cores(), needed=needed)


def _check_out(out: Path) -> None:
    """Refuse a results folder that is there and cannot be written to.

    Raises
    ------
    UserError : it is a file, or not writable
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"results folder {out} is a file; give another --out")
    if out.exists() and not os.access(out, os.W_OK):
        raise UserError(f"results folder {out} is not writable; give another --out")


def prepare(planned: Plan) -> list[TrialSpec]:
    """Write what the trials of a plan share, manifests and decoded images; return the trials.

    Raises
    ------
    UserError : the results folder is not writable, or an image is missing or corrupt
    """
    out = planned.request.out
    _check_out(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"results folder {out} cannot be made ({error.strerror}); give another --out") from error
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
