"""Train methods on a long-tailed dataset, several trials each, and print the leaderboard.

    python benchmarks/run.py --method flex --ratio 500
    python benchmarks/run.py --method all --ratio 100 200 500

The same command again skips what is done, resumes what was interrupted, and prints the leaderboard.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ltbench.benchmarks.cli.command import EXIT_BAD_INPUT, Parser, guarded
from ltbench.benchmarks.training import wandb_mirror
from ltbench.errors import UserError
from ltbench.processes import available_cores, preload
from ltbench.registry import load_plugin, unknown

if TYPE_CHECKING:
    import torch

    from ltbench.benchmarks.analysis.records import Record
    from ltbench.benchmarks.executors.local import Outcome
    from ltbench.benchmarks.training.protocol import Protocol
    from ltbench.benchmarks.training.trial_spec import TrialSpec
    from ltbench.datasets.loading import SplitDataset

_MAX_TRIALS = 1000


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(
        prog="run.py",
        description=__doc__.partition("\n")[0],
        epilog="methods, datasets and presets are listed by --list",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_what(parsed.add_argument_group("what to run"))
    _add_data(parsed.add_argument_group("data"))
    _add_protocol(parsed.add_argument_group("protocol, the same for every method"))
    _add_how(parsed.add_argument_group("how to run"))
    return parsed


def _add_what(what: argparse._ArgumentGroup) -> None:
    what.add_argument("--method", nargs="+", default=["flex"], metavar="NAME", help="names, or all; default: flex")
    what.add_argument(
        "--ratio", nargs="+", metavar="R", help="imbalance ratios, or natural; default: the dataset's, mostly 100"
    )
    which = what.add_mutually_exclusive_group()
    which.add_argument("--trials", type=int, default=5, metavar="N", help="trials of each method; default: 5")
    which.add_argument("--trial", nargs="+", type=int, metavar="K", help="only these, from 0; instead of --trials")
    what.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="hyper-parameters")
    what.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE.py", help="methods of your own")


def _add_data(data: argparse._ArgumentGroup) -> None:
    data.add_argument("--dataset", default="auto", metavar="NAME", help="default: auto, ISIC-2019-LT or synthetic")
    data.add_argument("--data-root", type=Path, metavar="DIR", help="default: $LTBENCH_DATA, else ./data")
    data.add_argument(
        "--dataset-option", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="of the dataset"
    )
    data.add_argument(
        "--split",
        metavar="NAME",
        help="paper (by image), lesion (no lesion in two parts), official (the dataset's own); default: the dataset's",
    )
    data.add_argument("--split-dir", type=Path, metavar="DIR", help="published split files (*.npy) to use instead")
    data.add_argument("--n-max", metavar="N", help="training images of the largest class, or auto")
    data.add_argument("--common-test", action="store_true", help="nothing but the ratio differs between ratios")
    data.add_argument("--val-per-class", type=int, metavar="N", help="default: the dataset's, mostly 50")
    data.add_argument("--test-per-class", type=int, metavar="N", help="default: the dataset's, mostly 100")
    data.add_argument("--allow-missing", action="store_true", help="use the images that are there")


def _add_protocol(shared: argparse._ArgumentGroup) -> None:
    shared.add_argument("--preset", metavar="NAME", help="default: the dataset's")
    shared.add_argument("--backbone", metavar="NAME", help="a timm model")
    shared.add_argument("--pretrained", action="store_true", default=None, help="start from its published weights")
    shared.add_argument("--image-size", type=int, metavar="N")
    shared.add_argument("--epochs", type=int, metavar="N")
    shared.add_argument("--patience", type=int, metavar="N", help="of early stopping, epochs")
    shared.add_argument("--batch-size", type=int, metavar="N")
    shared.add_argument("--lr", type=float, metavar="X")
    shared.add_argument("--epoch-length", metavar="NAME", help="on a subset: pass, or steps of the full set")
    shared.add_argument("--precision", metavar="NAME", help="auto, bf16 or fp32")
    shared.add_argument("--seed", type=int, metavar="N", help="default: 0")


def _add_how(how: argparse._ArgumentGroup) -> None:
    how.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N")
    how.add_argument("--jobs", type=int, metavar="N", help="trials side by side; default: one a CPU core, 1 on a GPU")
    how.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    how.add_argument("--fresh", action="store_true", help="discard earlier results of these trials")
    how.add_argument("--format", default="github", metavar="NAME", help="of the tables: github, latex, csv, html")
    how.add_argument(
        "--wandb", default="disabled", metavar="MODE", help="online, offline or disabled (default); not for done trials"
    )
    how.add_argument("--wandb-artifacts", action="store_true", help="also send predictions and pictures")
    how.add_argument("--dry-run", action="store_true", help="show what would be run; writes nothing")
    how.add_argument(
        "--list", nargs="*", metavar="METHOD", help="list what there is, or explain methods and their hyper-parameters"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code: 0, 2 bad input, 130 interrupted, 143 terminated."""
    arguments = sys.argv[1:] if arguments is None else arguments
    again = f"python benchmarks/run.py {shlex.join(arguments)}"
    return guarded(lambda: _main(parser().parse_args(arguments)), hint=f"; resume with: {again}")


def _main(options: argparse.Namespace) -> int:
    for plugin in options.plugin:
        load_plugin(plugin)
    if options.list is not None:
        from ltbench.benchmarks.cli.listing import describe_method, listing

        print("\n\n".join(map(describe_method, options.list)) if options.list else listing())
        return 0
    planned = plan(options)
    if options.fresh and not options.dry_run:
        from ltbench.benchmarks.training.trial import discard

        for spec in planned.specs:
            discard(spec.folder)
    _describe(planned)
    if options.dry_run:
        return 0
    failed = execute(planned, options)
    _print_leaderboards(planned, options)
    return failed


@dataclass(frozen=True)
class Plan:
    """What a command line means.

    Attributes
    ----------
    datasets : one a ratio
    specs : all trials
    jobs : trials side by side
    """

    datasets: Sequence[SplitDataset]
    protocol: Protocol
    device: torch.device
    jobs: int
    specs: Sequence[TrialSpec]


def plan(options: argparse.Namespace) -> Plan:
    """Return the trials that a command line means; reads the data's tables, writes nothing.

    Raises
    ------
    UserError : anything that the user can mend
    """
    methods, ratios = method_names(options.method), ratio_values(options.ratio)
    check_ranges(options)
    wandb_mirror.require(options.wandb)
    numbers = sorted(set(options.trial or range(options.trials)))
    if options.jobs != 1 and not options.dry_run and not options.device.startswith("cuda"):
        preload(["ltbench.benchmarks.executors.local"])
    datasets = _datasets(options, ratios)
    # Torch is imported from here on: what is wrong with names, numbers and tables has been said by now.
    from ltbench.benchmarks.executors.local import share_threads
    from ltbench.benchmarks.training.trial_spec import configure_methods, trial_specs

    protocol, device = _protocol(options, datasets[0].source.preset)
    chosen = configure_methods(methods, assignments("--set", options.set), protocol, datasets)
    jobs = options.jobs or _default_jobs(device, len(methods) * len(ratios) * len(numbers))
    specs = [
        spec
        for dataset in datasets
        for configured in chosen
        for spec in trial_specs(
            dataset,
            configured,
            protocol,
            trials=numbers[-1] + 1,
            out=options.out,
            device=str(device),
            plugins=options.plugin,
            wandb=options.wandb,
            wandb_artifacts=options.wandb_artifacts,
        )
        if spec.trial in numbers
    ]
    return Plan(datasets, protocol, device, jobs, share_threads(specs, jobs, available_cores()))


def execute(planned: Plan, options: argparse.Namespace) -> int:
    """Run what is not done of a plan; return the exit code."""
    pixels = _prepare(planned, options)
    specs = [replace(spec, data=replace(spec.data, pixels=pixels[spec.split_digest])) for spec in planned.specs]
    return _execute(specs, planned.jobs)


def method_names(names: Sequence[str]) -> list[str]:
    """Return the methods that `--method` means."""
    from ltbench.methods import available

    known = available()
    for name in names:
        if name != "all" and name not in known:
            raise unknown("method", name, ["all", *known])
    return known if "all" in names else list(dict.fromkeys(names))


def ratio_values(texts: Sequence[str] | None) -> list[float | str | None]:
    """Return the imbalance ratios that `--ratio` means: numbers, `natural`, or None for the dataset's own."""
    if texts is None:
        return [None]
    ratios: list[float | str | None] = []
    for text in texts:
        if text == "natural":
            ratios.append(text)
            continue
        try:
            ratio = float(text)
        except ValueError:
            raise UserError(f"--ratio must be a number or natural, got {text!r}") from None
        if not 1 <= ratio < float("inf"):
            raise UserError(f"--ratio must be at least 1 and finite, got {text}")
        ratios.append(ratio)
    return list(dict.fromkeys(ratios))


def check_ranges(options: argparse.Namespace) -> None:
    """Refuse what is wrong with options whatever the data are."""
    from ltbench.benchmarks.analysis.rendering import FORMATS

    bounds = {"trials": (1, _MAX_TRIALS), "jobs": (1, 1024), "seed": (0, 2**31), "val_per_class": (1, None)}
    for name, (low, high) in {**bounds, "test_per_class": (1, None)}.items():
        value = getattr(options, name)
        if value is not None and (value < low or (high is not None and value > high)):
            allowed = f"at least {low}" if high is None else f"from {low} to {high}"
            raise UserError(f"--{name.replace('_', '-')} must be {allowed}, got {value}")
    for number in options.trial or ():
        if not 0 <= number < _MAX_TRIALS:
            raise UserError(f"--trial must be from 0 to {_MAX_TRIALS - 1}, got {number}")
    if options.format not in FORMATS:
        raise unknown("format", options.format, FORMATS)
    if options.wandb not in wandb_mirror.MODES:
        raise unknown("--wandb mode", options.wandb, wandb_mirror.MODES)
    if options.wandb_artifacts and options.wandb == "disabled":
        raise UserError("--wandb-artifacts needs --wandb online or offline")


def assignments(option: str, texts: Sequence[str]) -> dict[str, str]:
    """Return the values that texts `NAME=VALUE` give to names.

    Raises
    ------
    UserError : a text of another form, or two values for a name
    """
    assigned = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"{option} takes NAME=VALUE, got {text!r}")
        if assigned.setdefault(name, value) != value:
            raise UserError(f"{option} gives {name} two values, {assigned[name]!r} and {value!r}; give one")
    return assigned


def n_max_value(text: str | None) -> int | str | None:
    """Return what `--n-max` means: a number, `auto`, or None for the dataset's."""
    if text is None or text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--n-max must be a whole number of at least 1 or auto, got {text!r}")
    return int(text)


def _datasets(options: argparse.Namespace, ratios: Sequence[float | str | None]) -> list[SplitDataset]:
    from ltbench.benchmarks.training.protocol import protocol_for
    from ltbench.datasets import registry
    from ltbench.datasets.loading import largest_common_n_max, load, require_common_test, resolve

    name, root = resolve(options.dataset, options.data_root)
    preset = options.preset or registry.get(name).preset
    image_size = protocol_for(preset, image_size=options.image_size).image_size
    n_max = n_max_value(options.n_max)
    common = {
        "root": root,
        "image_size": image_size,
        "split": options.split,
        "split_dir": options.split_dir,
        "val_per_class": options.val_per_class,
        "test_per_class": options.test_per_class,
        "seed": options.seed or 0,
        "allow_missing": options.allow_missing,
        "cache": options.out / "cache" / "images",
        "options": assignments("--dataset-option", options.dataset_option),
    }
    datasets = [load(name, ratio=ratio, n_max=n_max, **common) for ratio in ratios]
    if options.common_test:
        automatic = [dataset for dataset in datasets if dataset.n_max == "auto"]
        if automatic:
            n_max = largest_common_n_max(automatic)
        datasets = [
            load(name, ratio=ratio, n_max=n_max, **common) if dataset.n_max == "auto" else dataset
            for ratio, dataset in zip(ratios, datasets, strict=True)
        ]
        require_common_test(datasets)
    return datasets


def _protocol(options: argparse.Namespace, preset: str) -> tuple[Protocol, torch.device]:
    from ltbench.benchmarks.training.backbones import check_backbone
    from ltbench.benchmarks.training.device import resolve_device, resolve_precision
    from ltbench.benchmarks.training.protocol import Protocol, protocol_for

    names = {field.name for field in fields(Protocol)} & set(vars(options)) - {"preset"}
    protocol = protocol_for(options.preset or preset, **{name: getattr(options, name) for name in names})
    device = resolve_device(options.device)
    protocol = check_backbone(protocol)
    return replace(protocol, precision=resolve_precision(protocol.precision, device)), device


def _default_jobs(device: torch.device, trials: int) -> int:

    return 1 if device.type == "cuda" else max(1, min(available_cores(), trials))


def _describe(planned: Plan) -> None:
    from ltbench.benchmarks.training.trial import is_done

    print(f"data: {planned.datasets[0].source.title}")
    for dataset in planned.datasets:
        print(f"ratio {dataset.ratio:g}, split {dataset.split} ({dataset.manifest.digest[:8]})")
        print("\n".join(f"  {line}" for line in dataset.lines()))
    protocol, specs = planned.protocol, planned.specs
    shown = f"{protocol.backbone}, {protocol.image_size} px, Adam {protocol.lr:g}, batch {protocol.batch_size}"
    budget = f"at most {protocol.epochs} epochs, patience {protocol.patience}, {protocol.precision}"
    print(f"protocol {protocol.preset} ({protocol.digest()[:8]}): {shown}, {budget}")
    done = sum(is_done(spec.folder) for spec in specs)
    print(f"{len(specs)} trials, {done} of them done; {planned.device}, {planned.jobs} side by side", flush=True)


def _prepare(planned: Plan, options: argparse.Namespace) -> dict[str, str]:
    """Write what trials share: manifests and decoded images; return the digest of the pixels of each split."""
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"results folder {options.out} is a file; give another --out")
    options.out.mkdir(parents=True, exist_ok=True)
    if not os.access(options.out, os.W_OK):
        raise UserError(f"results folder {options.out} is not writable; give another --out")
    manifests = {dataset.manifest.digest: dataset.manifest for dataset in planned.datasets}
    for folder, digest in {spec.folder.parent: spec.split_digest for spec in planned.specs}.items():
        if not (folder / "split.csv").exists():
            folder.mkdir(parents=True, exist_ok=True)
            manifests[digest].write(folder / "split.csv")
    return {
        dataset.manifest.digest: dataset.store(workers=available_cores(), quiet=False).digest(dataset.manifest.ids)
        for dataset in planned.datasets
    }


def _execute(specs: Sequence[TrialSpec], jobs: int) -> int:
    """Run the trials; return the exit code."""
    from ltbench.benchmarks.executors.local import run_trials

    failures: list[Outcome] = []
    for outcome in run_trials(specs, jobs):
        if outcome.status == "failed":
            failures.append(outcome)
            print(outcome.details, end="", file=sys.stderr)
            print(f"error: {' '.join(outcome.message.split())}", file=sys.stderr, flush=True)
        elif outcome.status == "done":
            print(_finished(outcome.spec), file=sys.stderr, flush=True)
    if not failures:
        return 0
    return 1 if any(outcome.details for outcome in failures) else EXIT_BAD_INPUT


def _finished(spec: TrialSpec) -> str:
    from ltbench.benchmarks.analysis.records import read_result

    result = read_result(spec.folder / "result.json")
    selected, cost = result.selection, result.cost
    return (
        f"{spec.label}: test mean per-class accuracy {100 * result.test['mean_class_accuracy']:.2f} "
        f"(stage {selected.stage}, epoch {selected.epoch + 1}, validation {100 * selected.score:.2f}; "
        f"{cost.train_seconds:.0f} s of training)"
    )


def _print_leaderboards(planned: Plan, options: argparse.Namespace) -> None:
    """Print the tables of all records that share a setting with the plan: one of ratios where there are several."""
    from ltbench.benchmarks.analysis.tables import render_all

    shared, others = comparable_records(planned, options.out)
    if shared:
        several = len(planned.datasets) > 1 and options.format != "csv"  # which has the ratio as a column
        kinds = ["overview", "ratios"] if several else ["overview"]
        print("\n" + "\n\n".join(render_all(shared, options.format, [kind]) for kind in kinds))
    if others:
        print(f"\n{others} results of other protocols or splits are not mixed in; see leaderboard.py")


def comparable_records(planned: Plan, results: Path) -> tuple[list[Record], int]:
    """Return the records that share a setting with a plan, and how many of the same data and ratios do not."""
    from ltbench.benchmarks.analysis.records import find_records
    from ltbench.benchmarks.analysis.standings import key_of, setting_key

    wanted = {setting_key(spec.data, spec.split_digest, spec.protocol.digest()) for spec in planned.specs}
    folders = dict.fromkeys(spec.folder.parent.parent.name for spec in planned.specs)
    near = [record for name in folders for record in find_records(results, f"{name}/*/trial*/result.json")]
    shared = [record for record in near if key_of(record.result) in wanted]
    return shared, len(near) - len(shared)


def program() -> NoReturn:
    """Run the command of this process and end it."""
    sys.exit(main())


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose module names are not meant to be top-level ones
    program()
