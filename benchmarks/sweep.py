"""Write a grid or a search as a W&B sweep whose jobs are runs of one trial, or run the grid without W&B.

    ltbench sweep create --method ce flex --ratio 100 500 --trials 5
    ltbench sweep create --method ldam focal --search bayes --runs 20 --register
    ltbench sweep run --method ce flex --ratio 100 500 --trials 5

Options that are not listed here are those of `ltbench run` and go to every job.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ltbench.benchmarks import run
from ltbench.benchmarks.cli.arguments import request_from, resuming
from ltbench.benchmarks.cli.command import Parser, about, guarded, invocation, named_path, script
from ltbench.benchmarks.training import wandb_mirror
from ltbench.benchmarks.training.request import MAX_TRIALS, Ratio, Request, ratio_values
from ltbench.errors import UserError
from ltbench.files import write_bytes
from ltbench.registry import load_plugin, unknown

SEARCHES = ("grid", "random", "bayes")
_SET = "set."
_FILES = ("--plugin", "--config")


@dataclass(frozen=True)
class Job:
    """One trial of one method at one ratio.

    Attributes
    ----------
    ratio : None is the dataset's own
    hyperparameters : those that the grid sets
    """

    method: str
    ratio: Ratio | None
    trial: int
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)


def grid_jobs(
    methods: Sequence[str], ratios: Sequence[Ratio], trials: int, choices: Mapping[str, Sequence[Any]]
) -> list[Job]:
    """Return the jobs of a grid.

    Parameters
    ----------
    ratios : none stands for the dataset's own
    choices : values of hyper-parameters, by name
    """
    return [Job(*job) for job in itertools.product(methods, ratios or (None,), range(trials), _combined(choices))]


def grid_requests(
    base: Request, methods: Sequence[str], ratios: Sequence[Ratio], trials: int, choices: Mapping[str, Sequence[Any]]
) -> list[Request]:
    """Return the requests that run the jobs of a grid, one for each combination of hyper-parameters.

    Parameters
    ----------
    base : what all jobs share
    """
    grid = replace(base, methods=methods, ratios=ratios, trials=trials)
    return [replace(grid, hyperparameters={**base.hyperparameters, **each}) for each in _combined(choices)]


def _combined(choices: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def grid_definition(
    methods: Sequence[str],
    ratios: Sequence[Ratio],
    trials: int,
    choices: Mapping[str, Sequence[Any]],
    fixed: Sequence[str],
) -> dict[str, Any]:
    """Return the W&B sweep whose runs are the jobs of `grid_jobs`; `fixed` are options of `ltbench run` for all."""
    parameters = {
        "method": {"values": list(methods)},
        **({"ratio": {"values": list(map(_whole, ratios))}} if ratios else {}),
        "trial": {"values": list(range(trials))},
        **{_SET + name: {"values": list(values)} for name, values in choices.items()},
    }
    return _definition("grid", f"grid of {', '.join(methods)}", parameters, fixed)


def search_definition(
    method: str, space: Mapping[str, Any], ratio: Ratio | None, search: str, runs: int, fixed: Sequence[str]
) -> dict[str, Any]:
    """Return the W&B sweep that searches a method's hyper-parameters with `runs` runs of trial 0."""
    parameters = {
        "method": {"value": method},
        **({} if ratio is None else {"ratio": {"value": _whole(ratio)}}),
        "trial": {"value": 0},
        **{_SET + name: dict(choice) for name, choice in space.items()},
    }
    # A search never ends by itself; a grid does, and a cap would count the attempts that were lost with a machine.
    name = f"{search} search of {method}" + ("" if ratio is None else f", ratio {_whole(ratio)}")
    return _definition(search, name, parameters, fixed) | {"run_cap": runs}


def _definition(search: str, name: str, parameters: Mapping[str, Any], fixed: Sequence[str]) -> dict[str, Any]:
    wandb = [] if any(word.partition("=")[0] == "--wandb" for word in fixed) else ["--wandb", "online"]
    return {
        "name": name,
        "program": "ltbench",  # run as a module, wherever it is installed
        "command": ["${env}", "${interpreter}", "-m", "${program}", "sweep", "job", *fixed, *wandb, "${args}"],
        "method": search,
        "metric": {"name": wandb_mirror.SCORE, "goal": "maximize"},
        "parameters": dict(parameters),
    }


def search_space(method: str) -> dict[str, dict[str, Any]]:
    """Return the hyper-parameters that a method declares as worth searching, with the values worth trying.

    A method that names no values is searched over its bounded numbers. Elsewhere bounds say what is valid, not what is
    worth a run. Empty for a method without either.
    """
    from ltbench.methods import registry

    declared = {each.name: each.metadata for each in fields(registry.get(method).Config)}
    values: dict[str, dict[str, Any]] = {
        name: {"values": list(each["sweep"])} for name, each in declared.items() if each.get("sweep")
    }
    ranges = {name: (each.get("low"), each.get("high")) for name, each in declared.items()}
    return values or {
        name: {"distribution": "int_uniform" if isinstance(low, int) else "uniform", "min": low, "max": high}
        for name, (low, high) in ranges.items()
        if low is not None and high is not None and low < high
    }


def job_arguments(words: Sequence[str]) -> list[str]:
    """Return the arguments of `ltbench run` for a job's line: `--set.NAME=VALUE`, as W&B writes it, becomes `--set`."""
    prefix = f"--{_SET}"
    assigned = [word.removeprefix(prefix) for word in words if word.startswith(prefix)]
    others = [word for word in words if not word.startswith(prefix)]
    return [*others, "--set", *assigned] if assigned else others


def with_absolute_paths(words: Sequence[str]) -> list[str]:
    """Return options of `ltbench run` for jobs that start in any folder: files of plug-ins and requests absolute."""
    placed: list[str] = []
    for word in words:
        option, equals, path = word.partition("=")
        if placed and placed[-1] in _FILES:
            placed.append(str(Path(word).resolve()))
        elif equals and option in _FILES:
            placed.append(f"{option}={Path(path).resolve()}")
        else:
            placed.append(word)
    return placed


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(
        prog=invocation("sweep"),
        description=about(__doc__, "sweep", whole=True),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parsed.add_argument("action", metavar="create|run", help="write the W&B sweep, or run the grid without W&B")
    parsed.add_argument("--method", nargs="+", required=True, metavar="NAME", help="names, or all")
    parsed.add_argument("--ratio", nargs="+", metavar="R", help="imbalance ratios; default: the dataset's")
    parsed.add_argument("--trials", type=int, metavar="N", help="default: 5; a search trains trial 0 alone")
    parsed.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=V1,V2",
        help="values of a hyper-parameter, for a grid",
    )
    parsed.add_argument("--search", default="grid", metavar="KIND", help="grid (default), or random or bayes")
    parsed.add_argument("--runs", type=int, metavar="N", help="runs of each method's search; default: 20")
    parsed.add_argument(
        "--file", type=named_path, default=Path("sweep.yaml"), metavar="FILE", help="default: sweep.yaml"
    )
    parsed.add_argument("--register", action="store_true", help="also register the sweep with W&B; needs a key")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code, as `ltbench run` does."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["job"]:
        return run.main(job_arguments(arguments[1:]))
    again = f"{invocation('sweep')} {shlex.join(resuming(arguments))}"
    return guarded(lambda: _main(*parser().parse_known_args(arguments)), hint=f"; resume with: {again}")


def _main(options: argparse.Namespace, fixed: list[str]) -> int:
    if options.action not in ("create", "run"):
        raise unknown("action", options.action, ["create", "run"])
    if options.search not in SEARCHES:
        raise unknown("search", options.search, SEARCHES)
    shared = run.parser().parse_args(fixed)
    if "trials" in shared or shared.list is not None or shared.save_config is not None:
        raise UserError("sweep takes no --trial, --list and --save-config; give --trials, or use run")
    base, fixed = request_from(shared), with_absolute_paths(fixed)
    for plugin in base.plugins:
        load_plugin(plugin)
    ratios = ratio_values(options.ratio)
    _refuse_unfit(base, shared, options, ratios)
    from ltbench.benchmarks.training.planning.configured import method_names

    methods, trials = method_names(options.method), options.trials or base.protocol.get("folds") or 5
    if options.search != "grid":
        return _create(options, _searches(options, methods, ratios, fixed))
    choices = _choices(options.set, methods)
    if options.action == "run":
        return _run_grid(grid_requests(base, methods, ratios, trials, choices), shared)
    return _create(options, {options.file: grid_definition(methods, ratios, trials, choices, fixed)})


def _create(options: argparse.Namespace, definitions: Mapping[Path, Mapping[str, Any]]) -> int:
    """Write sweeps, register them where that is asked for, and print how they are started."""
    if options.register:
        wandb_mirror.require("online")
    checked = {path: _checked(definition) for path, definition in definitions.items()}
    for path, definition in definitions.items():
        _write(path, definition)
        print(f"{path}: {definition['name']}, {_runs(definition)} runs, {checked[path]}")
    for path, definition in definitions.items():
        by_hand = f"wandb sweep --project {_project()} {shlex.quote(str(path))}, then the wandb agent that it names"
        start = _register(definition) if options.register else by_hand
        print(f"start on any machine where ltbench is installed: {start}")
    return 0


def _refuse_unfit(
    base: Request, shared: argparse.Namespace, options: argparse.Namespace, ratios: Sequence[Ratio]
) -> None:
    """Refuse now what would fail in every job, as far as no data are needed to know it."""
    from ltbench.benchmarks.training.protocol import protocol_for
    from ltbench.datasets import registry

    if base.dataset != "auto":
        registry.get(base.dataset)
    protocol_for("paper" if base.preset is None else base.preset, **base.protocol)
    if options.trials is not None and not 1 <= options.trials <= MAX_TRIALS:
        raise UserError(f"--trials must be from 1 to {MAX_TRIALS}, got {options.trials}")
    if options.runs is not None and not 1 <= options.runs <= 10_000:
        raise UserError(f"--runs must be from 1 to 10000, got {options.runs}")
    if options.action == "create" and (base.fresh or shared.dry_run):
        raise UserError("--fresh and --dry-run would go to every job, which would never be done; leave them out")
    n_max = base.n_max
    if n_max is None and base.dataset != "auto":
        n_max = registry.get(base.dataset).default_n_max
    if options.action == "create" and base.common_test and n_max == "auto" and len(ratios) > 1:
        raise UserError("a job knows one ratio, so --common-test needs a number for --n-max here, not auto")
    if options.search == "grid" and options.runs is not None:
        raise UserError("--runs is for --search random or bayes; a grid runs all its jobs")
    if options.search != "grid" and (options.set or (options.trials or 1) > 1 or len(ratios) > 1):
        raise UserError(f"--search {options.search} takes one --ratio, trains trial 0, and chooses --set itself")
    if options.action == "run" and (options.search != "grid" or options.register):
        raise UserError("sweep run runs grids; a search and --register need W&B: use sweep create")


def _searches(
    options: argparse.Namespace, methods: Sequence[str], ratios: Sequence[Ratio], fixed: Sequence[str]
) -> dict[Path, dict[str, Any]]:
    """Return one sweep a method, with the same number of runs for each."""
    spaces = {name: search_space(name) for name in methods}
    bare = ", ".join(name for name, space in spaces.items() if not space)
    if bare and "all" not in options.method:
        raise UserError(f"{bare} has no hyper-parameter to search; leave it out or use --search grid")
    if bare:
        print(f"left out, without a hyper-parameter to search: {bare}")
    return {
        options.file.with_stem(f"{options.file.stem}-{name}"): search_definition(
            name, space, ratios[0] if ratios else None, options.search, options.runs or 20, fixed
        )
        for name, space in spaces.items()
        if space
    }


def _runs(definition: Mapping[str, Any]) -> int:
    """Return how many runs a sweep has."""
    return definition.get("run_cap") or math.prod(len(each["values"]) for each in definition["parameters"].values())


def _project() -> str:
    return os.environ.get("WANDB_PROJECT", wandb_mirror.PROJECT)


def _whole(ratio: Ratio) -> Ratio:
    """Return a whole number as an `int`, as a sweep's file is to show it."""
    return int(ratio) if isinstance(ratio, float) and ratio.is_integer() else ratio


def _choices(texts: Sequence[str], methods: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of hyper-parameters that `--set` lists, each checked against every method."""
    if not texts:
        return {}
    from ltbench.methods import configure, registry

    choices = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name or not values:
            raise UserError(f"--set takes NAME=VALUE or NAME=VALUE,VALUE, got {text!r}")
        if name in choices:
            raise UserError(f"--set gives {name} twice; list its values once, with commas between them")
        read = dict.fromkeys(values.split(","))
        configs = {method: registry.get(method).Config for method in methods}
        lacking = [method for method, own in configs.items() if name not in {each.name for each in fields(own)}]
        if 0 < len(lacking) < len(methods):
            raise UserError(
                f"a grid sets {name} for every method, and {', '.join(lacking)} has no such hyper-parameter; "
                "make a sweep of the methods that have it"
            )
        for method, config in configs.items():
            read = {value: getattr(configure(method, config, "paper", {name: value}), name) for value in read}
        choices[name] = list(dict.fromkeys(read.values()))
    return choices


def _run_grid(requests: Sequence[Request], shared: argparse.Namespace) -> int:
    """Run requests one after the other, as `ltbench run` does; return the first code that is not 0."""
    from ltbench.benchmarks.training.planning.plan import plan

    plans = [plan(request, run_next=not shared.dry_run) for request in requests]
    codes = [run.carry_out(planned, dry_run=shared.dry_run, style=shared.format) for planned in plans]
    return next((code for code in codes if code), 0)


def _write(path: Path, definition: Mapping[str, Any]) -> None:
    try:
        import yaml
    except ImportError as error:
        raise UserError(f"a sweep file needs the package pyyaml, which comes with wandb ({error})") from error
    write_bytes(path, yaml.safe_dump(dict(definition), sort_keys=False).encode())


def _checked(definition: Mapping[str, Any]) -> str:
    """Check a definition against W&B's schema where the package `sweeps` is installed; return what was done."""
    # Of the package's releases, 0.2 goes with numpy 2; its schema is older than `run_cap`, which 0.3 knows.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from sweeps.config import schema, schema_violations_from_proposed_config
    except ImportError:
        return 'schema not checked (pip install "sweeps<0.3" would)'
    unknown_keys = {"run_cap"} - set(schema.sweep_config_jsonschema["properties"])
    violations = schema_violations_from_proposed_config(
        {name: value for name, value in definition.items() if name not in unknown_keys}
    )
    if violations:
        raise UserError(f"W&B would refuse this sweep: {'; '.join(map(str, violations))}")
    return f"schema checked{', but for run_cap' if unknown_keys & set(definition) else ''}"


def _register(definition: Mapping[str, Any]) -> str:
    """Register a sweep; return the line that starts an agent."""
    project = _project()
    sweep = wandb_mirror.register_sweep(definition, project)
    return f"wandb agent {sweep if '/' in sweep else f'{project}/{sweep}'}"


if __name__ == "__main__":
    script(__file__)
