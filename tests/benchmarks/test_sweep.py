"""Sweeps: the definition that W&B gets means exactly the manifest's jobs, each of which run.py accepts."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ltbench.benchmarks import run, sweep
from ltbench.methods import available, configure, registry

ROOT = Path(__file__).parents[2]
FIXED = ["--dataset", "synthetic", "--epochs", "1"]
GRID = ["--method", "ce", "rs", "--ratio", "5", "10.5", "--trials", "3"]
SETTINGS = {"dataset": "synthetic", "epochs": 1, "image-size": 16, "n-max": 30, "val-per-class": 3, "jobs": 1}
SETTINGS |= {"test-per-class": 4, "batch-size": 16, "precision": "fp32"}
TINY = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]


def _created(arguments: list[str], folder: Path) -> dict[str, dict[str, Any]]:
    assert sweep.main(["create", *arguments, "--file", str(folder / "sweep.yaml")]) == 0
    return {path.name: yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))}


def _line(definition: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Return a job's arguments as W&B's agent writes them, by its own function."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    given = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})["args"]
    assert definition["command"][:4] == ["${env}", "${interpreter}", "${program}", "job"]
    assert definition["command"][-1] == "${args}" and (ROOT / definition["program"]).is_file()
    return [*definition["command"][4:-1], *given]


def _job(line: list[str]) -> sweep.Job:
    options = run.parser().parse_args(sweep.job_arguments(line))
    (method,), (ratio,), (trial,) = run.method_names(options.method), run.ratio_values(options.ratio), options.trial
    return sweep.Job(method, ratio, trial, dict(text.split("=", 1) for text in options.set))


def _key(job: sweep.Job) -> tuple[Any, ...]:
    return job.method, float(job.ratio), job.trial, *((name, str(value)) for name, value in job.hyperparameters.items())


def _enumerated(definition: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs of a grid by the package that W&B's server uses."""
    sweeps = pytest.importorskip("sweeps")
    runs: list[Any] = []
    while len(runs) <= definition["run_cap"] and (following := sweeps.next_run(definition, runs)) is not None:
        following.state = sweeps.RunState.finished
        runs.append(following)
    return [{name: entry["value"] for name, entry in each.config.items()} for each in runs]


def test_a_grid_is_the_manifest(tmp_path: Path) -> None:
    (definition,) = _created([*GRID, *FIXED], tmp_path).values()
    jobs = sweep.manifest(["ce", "rs"], [5, 10.5], 3, {})
    assert len(jobs) == 12 == definition["run_cap"]
    assert definition["metric"] == {"name": "val/score", "goal": "maximize"}
    names = definition["parameters"]
    product = itertools.product(*(choice["values"] for choice in names.values()))
    lines = [_line(definition, dict(zip(names, values, strict=True))) for values in product]
    assert sorted(map(_key, map(_job, lines))) == sorted(map(_key, jobs))
    options = run.parser().parse_args(sweep.job_arguments(lines[0]))
    assert (options.wandb, options.dataset, options.epochs) == ("online", "synthetic", 1)


def test_a_grid_passes_the_schema_and_enumerates_to_the_manifest(tmp_path: Path) -> None:
    config = pytest.importorskip("sweeps.config")
    (definition,) = _created([*GRID, *FIXED], tmp_path).values()
    assert config.schema_violations_from_proposed_config(definition) == []
    jobs = [_job(_line(definition, values)) for values in _enumerated(definition)]
    wanted = sweep.manifest(["ce", "rs"], [5, 10.5], 3, {})
    assert len(jobs) == 12 and sorted(map(_key, jobs)) == sorted(map(_key, wanted))


def test_hyper_parameters_in_a_grid(tmp_path: Path) -> None:
    grid = ["--method", "ldam", "--ratio", "5", "--trials", "2", "--set", "drw=true,false", "max_margin=0.3,0.5"]
    (definition,) = _created([*grid, *FIXED], tmp_path).values()
    assert definition["parameters"]["set.drw"] == {"values": [True, False]}
    jobs = sweep.manifest(["ldam"], [5], 2, {"drw": [True, False], "max_margin": [0.3, 0.5]})
    names = definition["parameters"]
    product = itertools.product(*(choice["values"] for choice in names.values()))
    lines = [_line(definition, dict(zip(names, values, strict=True))) for values in product]
    assert sorted(map(_key, map(_job, lines))) == sorted(map(_key, jobs))
    for line in lines:
        configure("ldam", registry.get("ldam").Config, "paper", dict(_job(line).hyperparameters))
    calls = [run.parser().parse_args(arguments) for arguments in sweep.grid_arguments(jobs)]
    assert [call.trial for call in calls] == [[0, 1]] * 4
    assert [call.set for call in calls] == [
        [f"drw={drw}", f"max_margin={margin}"] for drw in (True, False) for margin in (0.3, 0.5)
    ]


@pytest.mark.parametrize("search", ["random", "bayes"])
def test_every_method_is_searched_with_the_same_budget(search: str, tmp_path: Path) -> None:
    searched = [name for name in available() if name in ("flex", "ldam", "rs", "tau_norm", "oltr", "elf")]
    options = ["--method", *searched, "--search", search, "--budget", "7"]
    definitions = _created([*options, *FIXED], tmp_path)
    assert set(definitions) == {f"sweep-{name}.yaml" for name in searched}
    for name, definition in zip(sorted(searched), definitions.values(), strict=True):
        assert definition["run_cap"] == 7 and definition["method"] == search
        assert definition["parameters"]["method"] == {"value": name}
        for end in (0, -1):
            values = {key: _extreme(choice, end) for key, choice in definition["parameters"].items()}
            configure(name, registry.get(name).Config, "paper", dict(_job(_line(definition, values)).hyperparameters))


def _extreme(choice: dict[str, Any], end: int) -> Any:
    """Return the first or the last value of a parameter's range."""
    return list(choice["values"] if "values" in choice else choice.values())[end]


@pytest.mark.parametrize("search", ["random", "bayes"])
def test_searches_pass_the_schema_and_draw_jobs_that_run_accepts(search: str, tmp_path: Path) -> None:
    sweeps = pytest.importorskip("sweeps")
    schema = pytest.importorskip("sweeps.config").schema_violations_from_proposed_config
    for name, definition in _created(["--method", "flex", "ldam", "--search", search], tmp_path).items():
        assert schema(definition) == []
        following = sweeps.next_run(definition, [])
        job = _job(_line(definition, {key: entry["value"] for key, entry in following.config.items()}))
        assert name == f"sweep-{job.method}.yaml" and job.trial == 0
        configure(job.method, registry.get(job.method).Config, "paper", dict(job.hyperparameters))


def test_search_spaces_come_from_what_methods_declare() -> None:
    space = sweep.search_space("ldam")
    assert space["drw"] == {"values": [True, False]} and space["max_margin"] == {"values": [0.3, 0.5, 0.7]}
    assert sweep.search_space("tau_norm") == {"tau": {"min": 0.0, "max": 1.0}}


def test_run_trains_the_grid_and_skips_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "results")]
    grid = ["--method", "rs", "--ratio", "5", "--trials", "2", "--set", "power=0,0.5", *TINY, *out]
    assert sweep.main(["run", *grid]) == 0
    results = sorted((tmp_path / "results").glob("*/*/trial*/result.json"))
    assert sorted((r["hyperparameters"]["power"], r["trial"]) for r in map(_json, results)) == [
        (power, trial) for power in (0.0, 0.5) for trial in (0, 1)
    ]
    stamps = [path.stat().st_mtime_ns for path in results]
    # A job of W&B's agent finds the same trials done.
    (definition,) = _created([*grid, "--wandb", "disabled"], tmp_path).values()
    for values in ({"method": "rs", "ratio": 5, "trial": 1, "set.power": 0.5},):
        assert sweep.main(["job", *_line(definition, values)]) == 0
    assert "1 trials, 1 of them done" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in results] == stamps


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


BAD = {
    "creat --method ce": "did you mean 'create'",
    "create --method cee": "did you mean 'ce'",
    "create": "--method",
    "create --method ce --search baies": "did you mean 'bayes'",
    "create --method ce --search random": "ce has no hyper-parameter to search",
    "create --method ldam --search random --budget 0": "--budget must be",
    "create --method ldam --budget 5": "--budget is for",
    "create --method ldam --search random --trials 3": "takes one --ratio",
    "create --method ce --trials 0": "--trials must be",
    "create --method ce --epoch 3": "unrecognized arguments",
    "create --method ce --trial 3": "no --trial",
    "create --method ldam --set drw=maybe": "drw must be true or false",
    "create --method ldam --set dwr=true": "did you mean 'drw'",
    "create --method ldam --set drw": "--set takes",
    "create --method ce --register": "no W&B key",
    "run --method ldam --search bayes": "runs grids",
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_is_one_line(
    arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    assert sweep.main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and BAD[arguments] in line
    assert list(tmp_path.iterdir()) == []


def test_registering_tells_how_to_start_an_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    arguments = ["create", *GRID, "--register", "--file", str(tmp_path / "sweep.yaml")]
    monkeypatch.setattr(wandb, "sweep", lambda definition, project: f"id{definition['run_cap']}")
    assert sweep.main(arguments) == 0
    assert "wandb agent ltbench/id12" in capsys.readouterr().out

    def broken(definition: Any, project: str) -> str:
        raise wandb.Error("no network")

    monkeypatch.setattr(wandb, "sweep", broken)
    assert sweep.main(arguments) == 2
    assert "did not register the sweep (Error: no network)" in capsys.readouterr().err


def test_help_answers_without_heavy_imports() -> None:
    program = (
        "import sys; from ltbench.benchmarks import sweep; sweep.parser().format_help()\n"
        "heavy = {'torch', 'timm', 'pandas', 'sklearn', 'matplotlib', 'wandb', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT.parent)
