"""What several commands parse: the options of a request, and how they become one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ltbench.benchmarks.analysis.rendering import FORMATS
from ltbench.benchmarks.cli.command import named_path
from ltbench.benchmarks.executors.base import check_executor
from ltbench.benchmarks.training.request import PROTOCOL_CHANGES, Request, read_request
from ltbench.errors import UserError
from ltbench.registry import load_plugin, unknown

_PROTOCOL_HELP = {
    "backbone": "a timm model",
    "weights": "it starts from: none, timm (its published ones), timm:TAG, file:PATH or hub:ID",
    "tune": "of the backbone: full, head (nothing of it), bias, norm, lora or adaptformer",
    "tune_rank": "of lora and adaptformer",
    "frozen_features": "train heads on features of the frozen network, computed once (preset probe)",
    "patience": "of early stopping, epochs",
    "epoch_length": "on a subset: pass, or steps of the full set",
    "precision": "auto, bf16 or fp32",
    "optimizer": "adam, adamw or sgd",
    "schedule": "of the learning rate: constant or cosine",
    "selection_metric": "that selects the epoch: mean_class_accuracy, macro_f1 or top1",
    "weight_decay": "of the optimizer",
    "budget": "paper, further stages are extra; or total, all stages of a method within the steps of ce",
    "init": "what every encoder starts from: scratch, ssl, ssl:simclr, ssl:byol, ssl:simsiam, ssl:barlow, ssl:kcl, ce",
    "tta": "what logits are the mean of: none, the whole image alone; or five_crop",
    "vary_split": "each trial draws a split of its own, so that intervals hold for new splits too",
    "folds": "cross-validation: trial k tests on fold k of N, predictions are pooled; not with --test-per-class",
    "lr_warmup": "share of a stage's epochs in which the learning rate rises, below 1",
}
_METAVARS = {"int": "N", "float": "X", "str": "NAME"}


def add_request(parser: argparse.ArgumentParser) -> None:
    """Add all options of a request; only those that are given become attributes, as `request_from` reads them."""
    _add_what(parser.add_argument_group("what to run"))
    _add_data(parser.add_argument_group("data"))
    _add_protocol(parser.add_argument_group("protocol, the same for every method"))
    _add_how(parser.add_argument_group("how to run"))


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add what a command shows: `--dry-run` and `--format`."""
    shown = parser.add_argument_group("what to show")
    shown.add_argument("--dry-run", action="store_true", help="show what would be run; trains nothing")
    about = f"of the tables: {', '.join(FORMATS)}; default: github"
    shown.add_argument("--format", default="github", metavar="NAME", help=about)


def add_plugins(group: Any) -> None:
    """Add `--plugin`, whose files `load_plugins` imports."""
    about = "files with further methods and datasets"
    _add(group, "--plugin", dest="plugins", type=named_path, nargs="+", action="extend", metavar="FILE.py", help=about)


def load_plugins(options: argparse.Namespace) -> None:
    """Import the files of `--plugin`.

    Raises
    ------
    UserError : a file is missing, fails on import, registers nothing or a taken name
    """
    for plugin in getattr(options, "plugins", ()):
        load_plugin(plugin)


def add_trial(parser: argparse.ArgumentParser) -> None:
    """Add the folder of a trial whose network is used, and `--plugin`."""
    parser.add_argument("trial", type=named_path, metavar="TRIAL", help="folder of a finished trial")
    add_plugins(parser)


def check_format(name: str) -> None:
    """Refuse an unknown format of tables.

    Raises
    ------
    UserError : with the nearest known one
    """
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)


def add_dataset_option(group: Any) -> None:
    """Add `--dataset-option`."""
    _add(group, "--dataset-option", nargs="+", action="extend", metavar="NAME=VALUE", help="of the dataset")


def resuming(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that go on with a run: the same ones, but nothing that is done is discarded again."""
    left = [word for word in arguments if word != "--fresh"]
    in_file = any(word.partition("=")[0] == "--config" for word in left)  # which may hold `fresh`
    return [*left, "--no-fresh"] if in_file else left


def request_from(options: argparse.Namespace, defaults: Mapping[str, Any] | None = None) -> Request:
    """Return the request that options mean: what is given, else what `--config` says, else the defaults.

    Raises
    ------
    UserError : a value that is of the wrong kind or out of range, or a file that is not readable
    """
    given = dict(vars(options))
    said = {**(defaults or {}), **(read_request(given["config"]) if "config" in given else {})}
    said |= {each.name: given[each.name] for each in fields(Request) if each.name in given}
    said["protocol"] = dict(said.get("protocol") or {}) | {
        name: given[f"protocol.{name}"] for name in PROTOCOL_CHANGES if f"protocol.{name}" in given
    }
    for name, option in (("hyperparameters", "set"), ("dataset_options", "dataset_option")):
        if option in given:
            said[name] = {**(said.get(name) or {}), **assignments(f"--{option.replace('_', '-')}", given[option])}
    request = Request(**said)
    check_executor(request.executor)
    return request


def assignments(option: str, texts: Sequence[str]) -> dict[str, str]:
    """Return the values that texts `NAME=VALUE` give to names.

    Raises
    ------
    UserError : a text of another form, or two values for a name
    """
    assigned: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"{option} takes NAME=VALUE, got {text!r}")
        if assigned.setdefault(name, value) != value:
            raise UserError(f"{option} gives {name} two values, {assigned[name]!r} and {value!r}; give one")
    return assigned


def _add(group: Any, option: str, **settings: Any) -> None:
    group.add_argument(option, default=argparse.SUPPRESS, **settings)


def _add_switch(group: Any, option: str, **settings: Any) -> None:
    """Add an option and its `--no-` form, which switches off what a `--config` file switches on."""
    _add(group, option, action=argparse.BooleanOptionalAction, **settings)


def _add_what(what: argparse._ArgumentGroup) -> None:
    _add(what, "--method", dest="methods", nargs="+", metavar="NAME", help="names, or all; default: flex")
    about_ratios = "imbalance ratios, or natural; default: the dataset's, mostly 100"
    _add(what, "--ratio", dest="ratios", nargs="+", metavar="R", help=about_ratios)
    which = what.add_mutually_exclusive_group()
    _add(which, "--trials", type=int, metavar="N", help="trials of each method; default: 5, or --folds")
    about_trial = "only these, from 0; instead of --trials"
    _add(which, "--trial", dest="trials", nargs="+", type=int, metavar="K", help=about_trial)
    _add(what, "--set", nargs="+", action="extend", metavar="NAME=VALUE", help="hyper-parameters")
    add_plugins(what)
    about_config = "a request as YAML or JSON, or a trial's config.json; other options replace its values"
    _add(what, "--config", type=named_path, metavar="FILE", help=about_config)


def _add_data(data: argparse._ArgumentGroup) -> None:
    _add(data, "--dataset", metavar="NAME", help="default: auto, ISIC-2019-LT or synthetic")
    _add(data, "--data-root", type=named_path, metavar="DIR", help="default: $LTBENCH_DATA, else ./data")
    add_dataset_option(data)
    about = "paper (by image), lesion (no lesion in two parts), official (the dataset's own); default: the dataset's"
    _add(data, "--split", metavar="NAME", help=about)
    _add(data, "--split-dir", type=named_path, metavar="DIR", help="published split files (*.npy) to use instead")
    _add(data, "--n-max", metavar="N", help="training images of the largest class, or auto")
    _add_switch(data, "--common-test", help="nothing but the ratio differs between ratios")
    _add(data, "--val-per-class", type=int, metavar="N", help="default: the dataset's, mostly 50")
    _add(data, "--test-per-class", type=int, metavar="N", help="default: the dataset's, mostly 100")
    about_lesions = "images of a lesion in validation and test: all (default), or one"
    _add(data, "--per-lesion", metavar="NAME", help=about_lesions)
    _add_switch(data, "--allow-missing", help="use the images that are there")


def _add_protocol(shared: argparse._ArgumentGroup) -> None:
    """Add one option for every field of the protocol that a request may change."""
    _add(shared, "--preset", metavar="NAME", help="default: the dataset's")
    for name, kind in PROTOCOL_CHANGES.items():
        option, about = f"--{name.replace('_', '-')}", {"dest": f"protocol.{name}", "help": _PROTOCOL_HELP.get(name)}
        if kind == "bool":
            _add_switch(shared, option, **about)
        else:
            value = {"int": int, "float": float, "str": str}[kind]
            _add(shared, option, type=value, metavar=_METAVARS[kind], **about)
    for option, weights in (("--pretrained", "timm"), ("--no-pretrained", "none")):
        about_weights = f"the same as --weights {weights}"
        _add(shared, option, dest="protocol.weights", action="store_const", const=weights, help=about_weights)
    _add(shared, "--seed", type=int, metavar="N", help="default: 0")


def _add_how(how: argparse._ArgumentGroup) -> None:
    _add(how, "--device", metavar="NAME", help="auto, cpu, cuda, cuda:N")
    _add(how, "--executor", metavar="NAME", help="local (default), ray, ray:ADDRESS or slurm; see docs/distributed.md")
    _add(how, "--gpus", metavar="LIST", help="of this machine: 0,1,2,3 or all; trials are spread over them")
    about_jobs = "trials side by side on a device; default: one a CPU core, on GPUs what their memory takes"
    _add(how, "--jobs", type=int, metavar="N", help=about_jobs)
    _add(how, "--threads", type=int, metavar="N", help="CPU threads of a trial; default: 1, on a GPU the cores by jobs")
    about_checkpoints = "seconds between checkpoints within a stage; default: 30; 0: every epoch"
    _add(how, "--checkpoint-seconds", type=float, metavar="S", help=about_checkpoints)
    _add(how, "--out", type=named_path, metavar="DIR", help="default: results")
    _add_switch(how, "--fresh", help="discard earlier results of these trials")
    about_wandb = "online, offline or disabled (default); not for done trials"
    _add(how, "--wandb", metavar="MODE", help=about_wandb)
    _add_switch(how, "--wandb-artifacts", help="also send predictions and pictures")
