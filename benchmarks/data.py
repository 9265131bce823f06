"""Datasets: what there is, how to get it, whether it is whole, and what its splits leak.

    ltbench data list
    ltbench data info isic2019 --data-root DIR
    ltbench data download medmnist --data-root DIR --accept-licence
    ltbench data verify isic2019 --data-root DIR [--create]
    ltbench data audit isic2019 --data-root DIR --split lesion --ratio 100

`audit` needs labels and metadata alone: it draws the split from all images that the tables list, with `--allow-missing`
from those that are there, and looks into those images that are there.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltbench.benchmarks.cli.command import EXIT_BAD_INPUT, Parser, guarded, invocation, script
from ltbench.errors import UserError
from ltbench.processes import available_cores

if TYPE_CHECKING:
    from ltbench.datasets.base import Source
    from ltbench.datasets.download.remote import Remote
    from ltbench.datasets.sources._image_files import FileSource
    from ltbench.datasets.splits.manifest import Manifest

EXIT_LEAKS = 1


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(prog=invocation("data"), description=__doc__.partition("\n")[0])
    commands = parsed.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="all datasets")
    _add_command(commands, "info", "everything about one dataset, with class counts where it is on disk")
    download = _add_command(commands, "download", "fetch a dataset from its publishers; resumes where it stopped")
    download.add_argument("--accept-licence", action="store_true", help="the licence, which is shown, is accepted")
    download.add_argument("--dry-run", action="store_true", help="show what would be fetched")
    verify = _add_command(commands, "verify", "compare a folder with its manifest of checksums")
    verify.add_argument("--create", action="store_true", help="write the manifest of data that you trust")
    verify.add_argument("--manifest", type=Path, metavar="FILE", help="default: ltbench-manifest.csv in the folder")
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
    audit.add_argument("--strict", action="store_true", help=f"exit code {EXIT_LEAKS} where parts share anything")
    return parsed


def _add_command(commands: Any, name: str, what: str) -> argparse.ArgumentParser:
    added = commands.add_parser(name, help=what, description=what)
    added.add_argument("name", metavar="NAME", help="of the dataset")
    added.add_argument("--data-root", type=Path, metavar="DIR", help="default: $LTBENCH_DATA, else ./data")
    added.add_argument("--split-dir", type=Path, metavar="DIR", help="published split files (*.npy)")
    added.add_argument(
        "--dataset-option", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="of the dataset"
    )
    return added


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code: 0, 1 leaks (--strict), 2 bad input or data, 130 or 143 interrupted."""
    return guarded(lambda: _main(parser().parse_args(arguments)), hint="; run the same command again")


def _main(options: argparse.Namespace) -> int:
    commands = {"list": _list, "info": _info, "download": _download, "verify": _verify, "audit": _audit}
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
    missing = _missing(options)
    if missing is None or any(not _of_archive(dataset, file) for file in missing.values()):
        for remote in remotes:
            _fetch(remote, options)
    elif not missing:
        print(f"all images are there, in {options.data_root}")
    if dataset.archive_folder:
        _fetch_archive_images(dataset, options)
    if not options.dry_run:
        _require_all(dataset, options)
    return 0


def _missing(options: argparse.Namespace) -> dict[str, str] | None:
    """Return the images that are missing, by id, and where they are expected; None: it cannot be told."""
    from ltbench.datasets.sources._image_files import FileSource

    try:
        source = _source(options)
    except UserError:
        return None
    return _missing_of(source) if isinstance(source, FileSource) else None


def _missing_of(source: FileSource) -> dict[str, str]:
    absent = ~source.present
    return dict(zip(source.ids[absent].tolist(), source.files[absent].tolist(), strict=True))


def _of_archive(dataset: type[Source], file: str) -> bool:
    return bool(dataset.archive_folder) and file.startswith(f"{dataset.archive_folder}/")


def _require_all(dataset: type[Source], options: argparse.Namespace) -> None:
    """Check that a download left no image missing, as far as that can be told."""
    missing = _missing(options)
    if missing:
        raise UserError(
            f"{len(missing)} images are still missing in {options.data_root} (first: {next(iter(missing.values()))}); "
            f"run the same command again, or get them from {dataset.website}"
        )


def _fetch(remote: Remote, options: argparse.Namespace) -> None:
    from ltbench.datasets.download.transfer import fetch

    if options.dry_run:
        print(f"would fetch {remote.url} as {options.data_root / remote.name}")
    else:
        print(f"there: {fetch(remote, options.data_root)}", flush=True)


def _fetch_archive_images(dataset: type[Source], options: argparse.Namespace) -> None:
    """Fetch the missing images of the archive's folder from the ISIC Archive, by the archive's own program."""
    from ltbench.datasets.download.isic_cli import commands, fetch_images

    folder = options.data_root / dataset.archive_folder
    if options.dry_run and _missing(options) is None:
        print(f"would then fetch the images of the ISIC Archive that the tables name, to {folder}, by isic-cli")
        return
    wanted = [image for image, file in _missing_of(_source(options)).items() if _of_archive(dataset, file)]
    print(f"{len(wanted)} images of the ISIC Archive are missing in {folder}", flush=True)
    if options.dry_run:
        print("\n".join(map(shlex.join, commands(wanted, folder))))
    elif wanted:
        fetch_images(wanted, folder)


def _verify(options: argparse.Namespace) -> int:
    from ltbench.datasets.checks.verification import count_problems, problems, write_manifest
    from ltbench.datasets.loading import resolve
    from ltbench.datasets.tables import CHECKSUMS

    root = resolve(options.name, options.data_root)[1]
    if root is None:
        raise UserError(f"dataset {options.name} has no files: there is nothing to verify")
    manifest = options.manifest or root / CHECKSUMS
    if options.create:
        source = _source(options)
        count = write_manifest(source, root, manifest, workers=available_cores())
        print(f"{manifest}: {len(source.ids)} images, checksums of {count} files")
        _print_errors("note", count_problems(source))
        return 0
    found, source = [], None
    try:
        source = _source(options)
    except UserError as error:
        found.append(str(error))
    found += problems(root, manifest, source, workers=available_cores())
    found += [] if source is None else count_problems(source)
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
        _write_json(options.json, {**setting, **found.as_dict()})
    return EXIT_LEAKS if options.strict and found.leaks else 0


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


def _write_json(path: Path, value: Any) -> None:
    import json

    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    script(__file__)
