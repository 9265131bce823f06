"""A request: what it accepts, its file, and the trials that it means."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ltbench import methods
from ltbench.benchmarks.training.planning.plan import plan, prepare
from ltbench.benchmarks.training.request import Request, read_request, write_request
from ltbench.datasets.loading import SplitDataset
from ltbench.errors import UserError

TINY = {"n_max": 30, "val_per_class": 3, "test_per_class": 4, "ratios": [5], "dataset": "synthetic", "device": "cpu"}


def test_text_single_values_and_sequences_mean_the_same() -> None:
    typed = Request(["ce"], [20], n_max=30, plugins=[Path("a.py")], out=Path("x"), protocol={"lr": 3e-4})
    written = {"methods": "ce", "ratios": "20", "n_max": "30", "plugins": "a.py", "out": "x"}
    assert Request(**written, protocol={"lr": "3e-4"}) == typed
    earlier = (Request(protocol={"pretrained": kept}).protocol for kept in (True, False))
    assert [each["weights"] for each in earlier] == ["timm", "none"]
    assert Request(gpus="1,0") == Request(gpus=[1, 0]) and Request(gpus=2).gpus == (2,)
    assert Request(trials=[3, 1, 3]).trial_numbers == (1, 3) and Request(trials=2).trial_numbers == (0, 1)


BAD = [
    ({"trials": [1000]}, "--trial must be from 0 to 999"),
    ({"trials": 1.5}, "--trials must be from 1"),
    ({"methods": []}, "at least one method"),
    *(({"gpus": value}, "--gpus must be numbers from 0") for value in ("", "0,x", -1, [0.5], True)),
    ({"threads": 0}, "--threads must be from 1"),
    *(({"checkpoint_seconds": each}, "--checkpoint-seconds must be") for each in (-1, float("nan"), True, "often")),
    ({"seed": "x"}, "--seed must be a whole number"),
    ({"protocol": {"epoch": 1}}, "unknown field of the protocol 'epoch'; did you mean 'epochs'"),
    ({"protocol": {"epochs": "many"}}, "--epochs must be a whole number"),
    ({"protocol": {"pretrained": 1}}, "--pretrained must be true or false"),
    ({"wandb": "onlin"}, "did you mean 'online'"),
    ({"wandb_artifacts": True}, "needs --wandb"),
    ({"fresh": "false"}, "fresh of a request must be true or false, got 'false'"),
    ({"allow_missing": 1}, "allow_missing of a request must be true or false"),
    ({"hyperparameters": [1, 2]}, "hyperparameters of a request must be names with values"),
    *(({name: {1: 2}}, f"{name} of a request has the key 1") for name in ("hyperparameters", "protocol")),
    ({"methods": [["ce"]]}, "methods of a request must be names"),
    ({"ratios": True}, "--ratio must be a number"),
    *(({"protocol": {"epochs": value}}, "--epochs must be a whole number") for value in (2.7, True)),
    ({"protocol": 5}, "protocol of a request must be names with values"),
    ({"dataset": 5}, "dataset of a request must be text"),
    ({"preset": 3}, "preset of a request must be text"),
    ({"device": 3}, "device of a request must be text"),
    ({"plugins": [4]}, "plugins of a request must be paths"),
    ({"out": 5}, "out of a request must be a path"),
    *(({name: value}, "must not be empty") for name, value in (("out", ""), ("data_root", " "), ("plugins", [""]))),
]


@pytest.mark.parametrize(("fields", "message"), BAD, ids=lambda value: str(value))
def test_what_is_of_another_kind_or_out_of_range_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Request(**{"methods": ["ce"], **fields})


@pytest.mark.parametrize("name", ["request.yaml", "request.json"])
def test_a_file_holds_a_whole_request(name: str, tmp_path: Path) -> None:
    request = Request(["ce", "rs"], ["natural", 20.5], [4], {"rs.power": 0.5}, [tmp_path], protocol={"lr": 3e-4})
    write_request(tmp_path / name, request)
    assert Request(**read_request(tmp_path / name)) == request


def test_relative_paths_of_a_file_begin_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = {"weights": "file:w.pth"}
    write_request(tmp_path / "a.yaml", Request(plugins=["new.py"], data_root="data", protocol=weights))
    (tmp_path / "b.yaml").write_text("plugins: new.py\ndata_root: data\nout: here\nprotocol: {weights: file:w.pth}\n")
    monkeypatch.chdir("/")
    for name, out in (("a.yaml", "results"), ("b.yaml", "here")):
        read = Request(**read_request(tmp_path / name))
        assert (*read.plugins, read.data_root, read.out) == (tmp_path / "new.py", tmp_path / "data", Path(out))
        assert read.protocol == {"weights": f"file:{tmp_path / 'w.pth'}"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a pipe", "is not a regular file"),
        ("method: ce", "unknown key in .* 'method'; did you mean 'methods'"),
        ("- ce", "must hold names with values"),
        ("a: [", r"neither YAML nor JSON \(line 1, column 5: [^\n]*\)$"),
        (None, "is not readable"),
    ],
)
def test_a_file_that_is_no_request(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "request.yaml"
    if text is not None:
        os.mkfifo(path) if text == "a pipe" else path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_request(path)


def test_a_trial_is_the_same_whatever_else_is_asked_for_and_names_its_request(tmp_path: Path) -> None:
    request = Request(["ce"], out=tmp_path, **TINY)
    five, six = (plan(replace(request, trials=trials)) for trials in (5, 6))
    pixels = {dataset.manifest.digest: "" for dataset in five.datasets}
    assert five.specs(pixels)[4] == six.specs(pixels)[4] and five.threads == 1
    assert plan(replace(request, threads=2, methods=["ce", "rs"])).threads == 2
    one, two = (plan(replace(request, threads=threads)) for threads in (1, 2))
    assert [row.folder for row in one.rows] == [row.folder for row in five.rows] != [row.folder for row in two.rows]
    assert not list(tmp_path.iterdir())
    request = Request(["rs", "rw"], hyperparameters={"rs.power": 0.5}, trials=2, out=tmp_path, **TINY)
    first = plan(request)
    pixels = {dataset.manifest.digest: "" for dataset in first.datasets}
    for spec in first.specs(pixels):
        told = json.loads(json.dumps(spec.request))
        (again,) = plan(Request(**told | {"out": tmp_path, "device": "cpu"})).specs(pixels)
        assert again == spec


@pytest.mark.parametrize("fresh", [True, False])
def test_fresh_trusts_no_stored_image(fresh: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = []

    def store(_: SplitDataset, **how: Any) -> Any:
        trusted.append(how["trust"])
        return SimpleNamespace(digest=lambda ids: "")

    monkeypatch.setattr(SplitDataset, "store", store)
    prepare(plan(Request(["ce"], out=tmp_path, fresh=fresh, **TINY)))
    assert trusted == [not fresh]


def test_a_method_of_the_program_itself_is_not_sent_to_other_processes(tmp_path: Path, monkeypatch: Any) -> None:
    for table in ("_entries", "_plugins"):  # which are as before after the test
        monkeypatch.setattr(methods.registry, table, dict(getattr(methods.registry, table)))

    @methods.register("own")
    class Own(methods.Method):
        """As the base class."""

    request = Request(["own"], out=tmp_path, **TINY)
    assert plan(request).jobs == 1
    with pytest.raises(UserError, match="own is registered by the program itself"):
        plan(replace(request, jobs=2))
