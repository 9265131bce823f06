"""Datasets: what there is, how to get it, whether it is whole, and what its splits leak.

    ltbench data list
    ltbench data info isic2019 --data-root DIR
    ltbench data download medmnist --data-root DIR --accept-licence
    ltbench data verify isic2019 --data-root DIR [--create] [--manifest FILE]
    ltbench data audit isic2019 --data-root DIR --split lesion --ratio 100

`audit` needs labels and metadata alone: it draws the split from all images that the tables list, with `--allow-missing`
from those that are there, and looks into those images that are there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltbench.benchmarks.cli.arguments import add_plugins, load_plugins
from ltbench.benchmarks.cli.command import EXIT_BAD_INPUT, Parser, about, guarded, invocation, script
from ltbench.errors import UserError
from ltbench.processes import available_cores

if TYPE_CHECKING:
    from ltbench.datasets.base import Source
    from ltbench.datasets.splits.manifest import Manifest

EXIT_LEAKS = 1


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(prog=invocation("data"), description=about(__doc__, "data"))
    commands = parsed.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_plugins(commands.add_parser("list", help="all datasets"))
    _add_command(commands, "info", "everything about one dataset, with class counts where it is on disk")
    download = _add_command(commands, "download", "fetch a dataset from its publishers; resumes where it stopped")
    download.add_argument("--accept-licence", action="store_true", help="the licence, which is shown, is accepted")
    download.add_argument("--dry-run", action="store_true", help="show what would be fetched")
    verify = _add_command(commands, "verify", "compare a folder with its manifest of checksums")
    verify.add_argument("--create", action="store_true", help="write the manifest of data that you trust")
    about_manifest = "default: NAME-manifest.csv in the working folder; in the data folder only where it is named"
    verify.add_argument("--manifest", type=Path, metavar="FILE", help=about_manifest)
    audit = _add_command(commands, "audit", "overlap of the parts of a split, duplicates, broken images")
    audit.add_argument("--split", metavar="NAME", help="paper, lesion or official; default: the dataset's")
    audit.add_argument("--ratio", metavar="R", help="imbalance ratio, or natural; default: the dataset's")
    audit.add_argument("--n-max", metavar="N", help="training images of the largest class, or auto")
    audit.add_argument("--val-per-class", type=int, metavar="N", help="default: the dataset's")
    audit.add_argument("--test-per-class", type=int, metavar="N", help="default: the dataset's")
    audit.add_argument("--seed", type=int, default=0, metavar="N", help="of the split; default: 0")
    audit.add_argument(
        "--allow-missing",
        action="store_true",
        help="draw from what is there alone, as run --allow-missing",
    )
    audit.add_argument("--no-images", action="store_true", help="look at tables alone")
    audit.add_argument("--distance", type=int, metavar="N", help="of hashes of near-duplicates, 0 to 64; default: 8")
    audit.add_argument("--json", type=Path, metavar="FILE", help="write all that was found")
    audit.add_argument(
        "--strict", action="store_true", help=f"exit code {EXIT_LEAKS} where parts share anything or images fail"
    )
    return parsed


def _add_command(commands: Any, name: str, what: str) -> argparse.ArgumentParser:
    added = commands.add_parser(name, help=what, description=what)
    added.add_argument("name", metavar="NAME", help="of the dataset")
    add_plugins(added)
    added.add_argument("--data-root", type=Path, metavar="DIR", help="default: $LTBENCH_DATA, else ./data")
    added.add_argument("--split-dir", type=Path, metavar="DIR", help="published split files (*.npy)")
    added.add_argument(
        "--dataset-option", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="of the dataset"
    )
    return added


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code: 0, 1 (audit --strict), 2 bad input or data, 130 or 143 interrupted."""
    return guarded(lambda: _main(parser().parse_args(arguments)), hint="; run the same command again")


def _main(options: argparse.Namespace) -> int:
    commands = {"list": _list, "info": _info, "download": _download, "verify": _verify, "audit": _audit}
    load_plugins(options)
    return commands[options.command](options)


def _list(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.cli.dataset_info import datasets_table

    print(datasets_table())
    return 0


def _info(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.cli.dataset_info import counts_table, describe, expected_table

    described = describe(options.name)
    try:
        known = counts_table(_source(options))
    except UserError as error:
        if options.data_root is not None or options.split_dir is not None or options.dataset_option:
            raise
        known = f"not on disk: {error}\n\n{expected_table(options.name)}".rstrip()
    print(f"{described}\n\n{known}")
    return 0


def _download(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.cli.dataset_info import how_to_get, licence_lines
    from ltbench.datasets import registry
    from ltbench.datasets.download.whole import fetch_dataset

    dataset = registry.get(options.name)
    assigned = _assigned(options)
    remotes = dataset.remotes(**assigned)
    if options.data_root is not None:
        dataset.require_by_hand(options.data_root, assigned.get("split_dir", options.split_dir))
    print("\n".join(licence_lines(dataset)))
    if not remotes:
        print(f"{options.name}: nothing to download ({how_to_get(options.name)})")
        return 0
    if options.data_root is None:
        raise UserError("download needs --data-root, the folder to fill")
    if not options.accept_licence and not options.dry_run:
        raise UserError("nothing was fetched: read the licence and add --accept-licence to accept it")
    fetch_dataset(
        options.name, options.data_root, options=assigned, split_dir=options.split_dir, dry_run=options.dry_run
    )
    return 0


def _verify(options: argparse.Namespace) -> int:
    from ltbench.datasets.checks.verification import count_problems, problems, write_manifest
    from ltbench.datasets.loading import resolve

    name, root = resolve(options.name, options.data_root)
    if root is None:
        raise UserError(f"dataset {name} has no files: there is nothing to verify")
    manifest = options.manifest or Path(f"{name}-manifest.csv")
    if options.manifest is None and Path.cwd().is_relative_to(root.resolve()):
        raise UserError(f"the working folder is in the data folder {root}; name the manifest with --manifest FILE")
    if options.create:
        source = _source(options)
        count = write_manifest(source, root, manifest, workers=available_cores())
        print(f"{manifest}: {len(source.ids)} images, checksums of {count} files")
        _print_errors("note", count_problems(source))
        return 0
    found: list[str] = []
    known: Source | None = None
    try:
        known = _source(options)
    except UserError as error:
        found.append(str(error))
    found += problems(root, manifest, known, workers=available_cores())
    found += [] if known is None else count_problems(known)
    _print_errors("error", found)
    print(f"{len(found)} problem(s); compared with {manifest}" if found else f"as in {manifest}")
    return EXIT_BAD_INPUT if found else 0


def _print_errors(kind: str, lines: Sequence[str]) -> None:
    for line in lines:
        print(f"{kind}: {' '.join(line.split())}", file=sys.stderr)


def _audit(options: argparse.Namespace) -> int:
    import numpy as np

    from ltbench.benchmarks.cli.audit_report import audit_text
    from ltbench.datasets.checks.audit import audit
    from ltbench.datasets.checks.image_facts import examine
    from ltbench.datasets.checks.near_duplicates import DISTANCE
    from ltbench.files import write_json

    distance = DISTANCE if options.distance is None else options.distance
    if not 0 <= distance <= 64:
        raise UserError(f"--distance must be from 0 to 64, got {distance}")
    if options.json is not None and not options.json.parent.is_dir():
        raise UserError(f"--json {options.json}: the folder {options.json.parent} does not exist")
    source = _source(options)
    manifest, setting = _split(source, options)
    facts = None
    if not options.no_images and source.present.any():
        facts = examine(source, np.flatnonzero(source.present), workers=available_cores(), quiet=False)
    found = audit(source, manifest, facts, distance=distance)
    heading = f"{source.title}, split {setting['split']}, ratio {setting['ratio']} ({manifest.digest[:8]})"
    print(audit_text(found, heading))
    if options.json is not None:
        write_json(options.json, {**setting, **found.as_dict()})
    return EXIT_LEAKS if options.strict and (found.leaks or found.unreadable) else 0


def _split(source: Source, options: argparse.Namespace) -> tuple[Manifest, dict[str, Any]]:
    """Return the split that the options mean, and its name, ratio and seed."""
    from ltbench.benchmarks.training.request import n_max_value, ratio_values
    from ltbench.datasets.checks.audit import declared_split
    from ltbench.datasets.loading import split_request

    asked = ratio_values(options.ratio)[0] if options.ratio is not None else None
    n_max, held_out = n_max_value(options.n_max), (options.val_per_class, options.test_per_class)
    request = split_request(source, options.split, options.split_dir, asked, n_max, *held_out)
    manifest = declared_split(source, **request, seed=options.seed, allow_missing=options.allow_missing)
    ratio = request["ratio"] if isinstance(request["ratio"], str) else f"{request['ratio']:g}"
    if options.split_dir is not None:
        return manifest, {"split": "published", "ratio": ratio, "seed": None}
    return manifest, {"split": request["split"], "ratio": ratio, "seed": options.seed}


def _source(options: argparse.Namespace) -> Source:
    from ltbench.datasets.loading import create_source, resolve

    name, root = resolve(options.name, options.data_root)
    return create_source(name, root, _assigned(options), split_dir=options.split_dir)


def _assigned(options: argparse.Namespace) -> dict[str, str]:
    from ltbench.benchmarks.cli.arguments import assignments

    return assignments("--dataset-option", options.dataset_option)


if __name__ == "__main__":
    script(__file__)
