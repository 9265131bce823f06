"""Sweeps: the definition that W&B gets means exactly the grid's jobs, each of which `run` accepts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb_server import WandbServer, serving

import ltbench
from ltbench.benchmarks import run, sweep
from ltbench.benchmarks.cli.arguments import request_from
from ltbench.benchmarks.training.planning import plan
from ltbench.benchmarks.training.request import Request
from ltbench.methods import available, configure, registry

ROOT = Path(ltbench.__file__).parent
FIXED = ["--dataset", "synthetic", "--epochs", "1"]
GRID = ["--method", "ce", "rs", "--ratio", "5", "10.5", "--trials", "3"]
SETTINGS = {"dataset": "synthetic", "epochs": 1, "image-size": 16, "n-max": 30, "val-per-class": 3, "jobs": 1}
SETTINGS |= {"test-per-class": 4, "batch-size": 16, "precision": "fp32"}
TINY = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]


def _created(arguments: list[str], folder: Path) -> dict[str, dict[str, Any]]:
    assert sweep.main(["create", *arguments, "--file", str(folder / "sweep.yaml")]) == 0
    return {path.name: yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))}


def _command(definition: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Return a job's command as W&B's agent writes it, its arguments by the agent's own function."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    given = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})["args"]
    filled = {"${env}": ["/usr/bin/env"], "${interpreter}": [sys.executable], "${args}": given}
    filled["${program}"] = [definition["program"]]
    return [word for part in definition["command"] for word in filled.get(part, [part])]


def _line(definition: dict[str, Any], values: dict[str, Any]) -> list[str]:
    start, line = _command(definition, values)[:6], _command(definition, values)[6:]
    assert start == ["/usr/bin/env", sys.executable, "-m", "ltbench", "sweep", "job"]
    return line


def _request(line: list[str]) -> Request:
    return request_from(run.parser().parse_args(sweep.job_arguments(line)))


def _job(line: list[str]) -> sweep.Job:
    request = _request(line)
    (method,), (trial,), ratios = request.methods, request.trial_numbers, request.ratios or (None,)
    return sweep.Job(method, *ratios, trial, request.hyperparameters)


def _key(job: sweep.Job) -> tuple[Any, ...]:
    return job.method, job.ratio, job.trial, *((name, str(value)) for name, value in job.hyperparameters.items())


def _enumerated(definition: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs of a grid by the package that W&B's server uses."""
    import sweeps

    runs: list[Any] = []
    while len(runs) < 100 and (following := sweeps.next_run(definition, runs)) is not None:
        following.state = sweeps.RunState.finished
        runs.append(following)
    return [{name: entry["value"] for name, entry in each.config.items()} for each in runs]


def _violations(definition: dict[str, Any]) -> list[str]:
    from sweeps.config import schema, schema_violations_from_proposed_config

    known = schema.sweep_config_jsonschema["properties"]
    if "run_cap" not in known:  # before sweeps 0.3
        definition = {name: value for name, value in definition.items() if name != "run_cap"}
    return schema_violations_from_proposed_config(definition)


def test_a_grid_passes_the_schema_and_enumerates_to_the_jobs(tmp_path: Path, capsys: Any) -> None:
    (definition,) = _created([*GRID, *FIXED], tmp_path).values()
    assert "grid of ce, rs, 12 runs, schema checked\n" in capsys.readouterr().out
    assert _violations(definition) == [] and "run_cap" not in definition
    assert sweep.with_absolute_paths(["--plugin", "a", "--config=b"]) == [
        "--plugin",
        f"{Path.cwd()}/a",
        f"--config={Path.cwd()}/b",
    ]
    assert definition["metric"] == {"name": "val/score", "goal": "maximize"}
    lines = [_line(definition, values) for values in _enumerated(definition)]
    jobs = sweep.grid_jobs(["ce", "rs"], [5, 10.5], 3, {})
    assert len(jobs) == 12 and sorted(map(_key, map(_job, lines))) == sorted(map(_key, jobs))
    request = _request(lines[0])
    assert (request.wandb, request.dataset, request.protocol) == ("online", "synthetic", {"epochs": 1})


@pytest.mark.parametrize(("given", "ratios"), [([], []), (["--ratio", "natural"], ["natural"])])
def test_a_grid_without_a_number_for_the_ratio(given: list[str], ratios: list[Any], tmp_path: Path) -> None:
    (definition,) = _created(["--method", "ce", "--trials", "2", *given, *FIXED], tmp_path).values()
    jobs = sweep.grid_jobs(["ce"], ratios, 2, {})
    assert [_key(_job(_line(definition, values))) for values in _enumerated(definition)] == list(map(_key, jobs))


def test_hyper_parameters_in_a_grid(tmp_path: Path) -> None:
    grid = ["--method", "ldam", "--ratio", "5", "--trials", "2", "--set", "drw=true,false", "max_margin=0.3,0.5"]
    (definition,) = _created([*grid, *FIXED], tmp_path).values()
    assert definition["parameters"]["set.drw"] == {"values": [True, False]}
    choices = {"drw": [True, False], "max_margin": [0.3, 0.5]}
    jobs = sweep.grid_jobs(["ldam"], [5], 2, choices)
    lines = [_line(definition, values) for values in _enumerated(definition)]
    assert _violations(definition) == [] and len(lines) == 8
    assert sorted(map(_key, map(_job, lines))) == sorted(map(_key, jobs))
    for line in lines:
        configure("ldam", registry.get("ldam").Config, "paper", dict(_job(line).hyperparameters))
    requests = sweep.grid_requests(Request(dataset="synthetic"), ["ldam"], [5], 2, choices)
    assert [request.trial_numbers for request in requests] == [(0, 1)] * 4
    assert [tuple(request.hyperparameters.values()) for request in requests] == [
        (drw, margin) for drw in (True, False) for margin in (0.3, 0.5)
    ]


def test_a_repeated_dataset_option_reaches_every_job(tmp_path: Path) -> None:
    options = ["--dataset-option", "table=a.csv", "--dataset-option", "label=b"]
    (definition,) = _created(["--method", "ce", "--dataset", "csv", *options], tmp_path).values()
    for values in _enumerated(definition):
        assert _request(_line(definition, values)).dataset_options == {"table": "a.csv", "label": "b"}


@pytest.mark.parametrize("search", ["random", "bayes"])
def test_every_method_is_searched_with_as_many_runs(search: str, tmp_path: Path, capsys: Any) -> None:
    import sweeps

    definitions = _created(["--method", "all", "--search", search, "--runs", "7", *FIXED], tmp_path)
    left_out = [name for name in available() if not sweep.search_space(name)]
    assert f"without a hyper-parameter to search: {', '.join(left_out)}\n" in capsys.readouterr().out
    searched = [name for name in available() if name not in left_out]
    assert set(definitions) == {f"sweep-{name}.yaml" for name in searched} and len(searched) > 10
    for name in searched:
        definition = definitions[f"sweep-{name}.yaml"]
        assert definition["run_cap"] == 7 and definition["method"] == search
        assert _violations(definition) == []
        for _ in range(3):
            drawn = {key: entry["value"] for key, entry in sweeps.next_run(definition, []).config.items()}
            job = _job(_line(definition, drawn))
            assert (job.method, job.ratio, job.trial) == (name, None, 0) and job.hyperparameters
            configure(name, registry.get(name).Config, "paper", dict(job.hyperparameters))


def test_search_spaces_are_the_values_that_methods_declare_and_bounds_only_where_there_are_none() -> None:
    space = sweep.search_space("ldam")
    assert space["drw"] == {"values": [True, False]} and space["max_margin"] == {"values": [0.3, 0.5, 0.7]}
    assert "ssl_momentum" not in sweep.search_space("flex")
    assert sweep.search_space("tau_norm") == {"tau": {"distribution": "uniform", "min": 0.0, "max": 1.0}}
    assert sweep.search_space("ce") == {}


def test_without_the_package_the_schema_is_not_checked_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sweeps.config", None)
    _created([*GRID, *FIXED], tmp_path)
    assert 'schema not checked (pip install "sweeps<0.3"' in capsys.readouterr().out


def test_what_the_schema_refuses_is_not_written(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep.wandb_mirror, "SCORE", 5)
    assert sweep.main(["create", *GRID, "--file", str(tmp_path / "sweep.yaml")]) == 2
    assert "W&B would refuse this sweep: 5 is not" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_run_trains_the_grid_whose_jobs_an_agent_then_finds_done(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(plan, "available_cores", lambda: 1)  # no processes for decoding
    out = ["--out", str(tmp_path / "results")]
    grid = ["--method", "rs", "--ratio", "5", "--trials", "2", "--set", "power=0,0.5", *TINY, *out]
    assert sweep.main(["run", *grid]) == 0
    results = sorted((tmp_path / "results").glob("*/*/trial*/result.json"))
    assert sorted((r["hyperparameters"]["power"], r["trial"]) for r in map(_json, results)) == [
        (power, trial) for power in (0.0, 0.5) for trial in (0, 1)
    ]
    stamps = [path.stat().st_mtime_ns for path in results]
    (definition,) = _created([*grid, "--wandb", "disabled"], tmp_path).values()
    command = _command(definition, _enumerated(definition)[-1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment).stdout
    assert "1 trial, 1 done" in told
    assert [path.stat().st_mtime_ns for path in results] == stamps


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


BAD = {
    "creat --method ce": "did you mean 'create'",
    "create --method cee": "did you mean 'ce'",
    "create": "--method",
    "create --method ce --search baies": "did you mean 'bayes'",
    "create --method ce --search random": "ce has no hyper-parameter to search",
    "create --method ldam --search random --runs 0": "--runs must be",
    "create --method ldam --runs 5": "--runs is for",
    "create --method ldam --search random --trials 3": "takes one --ratio",
    "create --method ce --epoch 3": "unrecognized arguments",
    "create --method ce --wandb onlin": "did you mean 'online'",
    "create --method ce --ratio 5 50 --common-test --n-max auto": "a job knows one ratio",
    "create --method ce --dataset digits --ratio 5 50 --common-test": "a job knows one ratio",
    "create --method ldam --set drw=true drw=false": "gives drw twice",
    "create --method ce --ratio big": "a number or natural",
    "create --method ce --fresh": "would go to every job",
    "create --method ce --trial 3": "no --trial",
    "create --method ldam --set drw=maybe": "drw must be true or false",
    "create --method ldam --set dwr=true": "did you mean 'drw'",
    "create --method ldam --set drw": "--set takes",
    "create --method ce focal --set gamma=1,2": "a grid sets gamma for every method, and ce has no such",
    "create --method ce rs --set gamma=1,2": "method ce has no hyper-parameters",
    "create --method ce --register": "no W&B key",
    "run --method ldam --search bayes": "runs grids",
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_is_one_line(arguments: str, refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "none")
    refuses(sweep.main, arguments.split(), BAD[arguments])


def test_registering_tells_how_to_start_an_agent(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    arguments = ["create", *GRID, "--register", "--file", str(tmp_path / "sweep.yaml")]
    with serving(WandbServer()) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert sweep.main(arguments) == 0
    assert "wandb agent ltbench/abc" in capsys.readouterr().out
    with serving(WandbServer(codes=(401,))) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert sweep.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: W&B did not register the sweep (")
