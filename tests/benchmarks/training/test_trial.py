"""Whole trials of every registered method on a tiny split."""

import gc
import json
import os
import shutil
import subprocess
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ltbench.benchmarks.analysis.metrics import evaluate
from ltbench.benchmarks.analysis.records import Record, find_records
from ltbench.benchmarks.training import trial
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.trial import discard, run_trial
from ltbench.datasets.loading import SplitDataset
from ltbench.errors import UserError
from ltbench.files import plain, write_bytes
from ltbench.locks import claimed, lock_of
from ltbench.methods.base import Method, Run
from ltbench.methods.contract import ContractError
from ltbench.methods.stages import Batch, Progress, Stage, StageResult

_OWN = {"lws": ([10.0], "none"), "ldam": ([1.0], "from"), "oltr": ([1.0], ""), "ce": ([1.0], "")}


@dataclass(frozen=True)
class _Empty:
    """No hyper-parameters."""


@pytest.mark.parametrize("name", ["ce", "flex", "elf"])  # all of them: test_contract.py
def test_every_method_trains_and_records(name: str, make_spec: Any, tiny_dataset: SplitDataset) -> None:
    spec = make_spec(name)
    assert run_trial(spec) == "done"
    (record,) = find_records(spec.folder.parents[2])
    result, arrays = record.result, record.predictions()
    assert result.method == name and result.split_digest == tiny_dataset.manifest.digest
    assert arrays["test_ids"].tolist() == tiny_dataset.manifest.part("test")[0].tolist()
    assert arrays["test_logits"].shape == (40, 8) and np.isfinite(arrays["test_logits"]).all()
    again = evaluate(arrays["test_labels"], arrays["test_logits"], result.data.groups, result.data.class_names)
    assert json.loads(json.dumps(plain(again))) == result.test
    assert result.cost.images_seen == sum(stage.images for stage in result.cost.stages) > 0
    assert run_trial(spec) == "skipped"
    assert not list(spec.folder.glob("**/*.tmp")) and not list((spec.folder / "journal").glob("*.pt"))


def test_the_steps_of_an_epoch_are_those_of_a_pass_over_its_images_or_over_the_training_set(
    make_spec: Any, tiny_protocol: Protocol
) -> None:
    steps = {}
    for length in ("pass", "steps"):
        spec = make_spec("flex", protocol=replace(tiny_protocol, epoch_length=length, epochs=1))
        run_trial(spec)
        rows = [json.loads(line) for line in _lines(spec.folder)]
        steps[length] = [row["steps"] for row in rows if row["stage"] != "pretrain"]
    bound = -(-sum(spec.data.class_counts) // spec.protocol.batch_size)
    assert max(steps["pass"] + steps["steps"]) <= bound
    assert steps["steps"][0] == bound > steps["pass"][0]


@pytest.mark.parametrize("kind", ["scratch", "ssl", "ce"])
def test_a_total_budget_holds_all_stages_and_one_encoder_serves_every_method(
    kind: str, make_spec: Any, tiny_protocol: Protocol
) -> None:
    shared = replace(tiny_protocol, budget="total", init=kind, epochs=4)
    for position, name in enumerate(("flex", "ce", "lws", "oltr", "ldam")):
        spec = make_spec(name, protocol=shared)
        run_trial(spec)
        stages = Record.read(spec.folder).result.cost.stages
        most = shared.epochs * -(-sum(spec.data.class_counts) // shared.batch_size)
        assert most / 4 < sum(stage.steps for stage in stages) <= most
        names = [stage.name for stage in stages]
        if kind != "scratch":
            assert names.count("initial") == 1 and "pretrain" not in names
            assert (names[0], stages[0].cached) == ("initial", position > 0)
        if name in _OWN:
            assert (list(stages[-1].rates), stages[-1].stopping[:4]) == _OWN[name]


def test_what_a_total_budget_cannot_hold_is_refused(make_spec: Any, tiny_protocol: Protocol, registered: Any) -> None:
    class Twice(Method):
        def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
            yield Stage("one", run.epochs)
            yield Stage("two", run.epochs)

    registered("twice", Twice)
    for name, reason in (("crt", "crt needs at least 22 optimizer steps"), ("twice", "its hook most_steps")):
        with pytest.raises(UserError, match=reason):
            run_trial(make_spec(name, protocol=replace(tiny_protocol, budget="total", epochs=1)))
    with pytest.raises(UserError, match="ssl_lr of flex would have no effect with --init ce"):
        make_spec("flex", protocol=replace(tiny_protocol, init="ce"), ssl_lr=0.1)


def test_selection_is_the_best_epoch_and_trials_differ(make_spec: Any, numbers_of: Any) -> None:
    spec = make_spec("ce")
    run_trial(spec)
    numbers = numbers_of(spec)
    scores = [float(np.mean(row["val_recall"])) for row in numbers["epochs"]]
    assert numbers["selection"]["epoch"] == int(np.argmax(scores))
    assert numbers["selection"]["score"] == max(scores) == pytest.approx(numbers["val"]["mean_class_accuracy"])
    first, second = make_spec(trial=0), make_spec(trial=1)
    run_trial(first)
    before = numbers_of(first)
    run_trial(second)
    assert numbers_of(first) == before
    assert numbers_of(second)["predictions"] != before["predictions"]


@pytest.mark.parametrize("name", ["ce", "elf"])
def test_five_crops_are_averaged_wherever_logits_are_reported(
    name: str, make_spec: Any, tiny_protocol: Protocol, numbers_of: Any
) -> None:
    plain, crops = (
        make_spec(name, protocol=replace(tiny_protocol, epochs=2, tta=tta)) for tta in ("none", "five_crop")
    )
    one, five = (Record.read(each.folder).result for each in (plain, crops) if run_trial(each))
    numbers = numbers_of(crops)
    assert numbers["selection"]["score"] == pytest.approx(numbers["val"]["mean_class_accuracy"])
    assert [row["terms"] for row in numbers["epochs"]] == [row["terms"] for row in numbers_of(plain)["epochs"]]
    seen = [stage.forward_images - stage.images for stage in (one.cost.stages[0], five.cost.stages[0])]
    assert seen[1] == 5 * seen[0]


def test_a_loss_that_is_not_finite_names_method_stage_and_epoch(make_spec: Any, registered: Any) -> None:
    class Broken(Method):
        def loss(self, batch: Batch, progress: Progress) -> Mapping[str, torch.Tensor]:
            loss = super().loss(batch, progress)["loss"] * (float("nan") if progress.epoch == 2 else 1)
            return {"loss": loss, "plain": 0.5, "numpy's": np.float32(2)}

    registered("broken", Broken)
    with pytest.raises(UserError, match=r"broken, stage 'train', epoch 2: loss is not finite"):
        run_trial(make_spec("broken"))


def test_a_validation_logit_that_is_not_a_number_ends_its_epoch(make_spec: Any, registered: Any) -> None:
    class Broken(Method):
        def predict(self, images: torch.Tensor) -> torch.Tensor:
            return super().predict(images) * float("nan")

    registered("broken", Broken)
    with pytest.raises(UserError, match=r"broken, stage 'train', epoch 0: a validation logit is not finite"):
        run_trial(make_spec("broken"))


def test_a_logit_that_is_not_finite_where_a_trial_is_scored_leaves_no_record(make_spec: Any, registered: Any) -> None:
    class Broken(Method):
        def inspect(self, images: torch.Tensor) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
            logits, details = super().inspect(images)
            return logits - torch.eye(1, logits.shape[1]) * float("inf"), details

    registered("broken", Broken)
    spec = make_spec("broken")
    with pytest.raises(UserError, match="broken"):
        run_trial(spec)
    assert not (spec.folder / "result.json").exists()


@pytest.mark.parametrize(
    ("hook", "returned"),
    [
        *[(hook, None) for hook in ("criterion", "predict", "inspect", "stages", "sampler", "transform", "loss")],
        *[(hook, None) for hook in ("param_groups", "optimizer", "partner", "schedule", "stop")],
        *[(hook, np.array([0, 10**6])) for hook in ("sampler", "partner")],
        *[("loss", {"loss": torch.ones((), requires_grad=True), "more": more}) for more in ("text", torch.ones(2))],
        ("predict", torch.zeros(2, 3, dtype=torch.int64)),
        *[("predict", torch.zeros(2, 3)), ("loss", {"loss": torch.zeros(())}), ("schedule", float("nan"))],
        *[("param_groups", [{"params": [None], "lr": 0.1}]), ("stages", (each for each in [None]))],
        *[("stages", (Stage("a", 1, indices=np.array(rows)) for rows in [[10**6]])), ("sampler", [0.5, 1.5])],
        *[("stages", (Stage("a", 1, produces=(name,)) for name in ["bakbone"]))],
        *[("stages", (Stage("a", 1, augmentation={name: 1}) for name in ["bogus"]))],
        ("optimizer", torch.optim.LBFGS([torch.zeros(2, requires_grad=True)])),
    ],
)
def test_what_a_hook_may_not_return_is_refused(hook: str, returned: Any, make_spec: Any, registered: Any) -> None:
    given: dict[str, Any] = {hook: lambda *_: returned}
    if hook in ("partner", "schedule", "stop"):
        stage = Stage("odd", 2, **given)
        given = {"stages": lambda *_: (each for each in [stage])}
    registered("odd", type("Odd", (Method,), given))
    with pytest.raises(ContractError, match=rf"^odd.*{hook}"):
        run_trial(make_spec("odd"))


@pytest.mark.parametrize(
    "fields",
    [{"keep": "bset"}, {"name": 3}, {"frozen": torch.nn.Linear(2, 2)}, {"produces": "head"}, {"sampler": np.arange(3)}],
)
def test_a_stage_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        Stage(**{"name": "train", "epochs": 1, **fields})


def test_hidden_hooks_and_epochs_are_refused(make_spec: Any, registered: Any) -> None:
    class Hides(Method):
        def build(self) -> None:
            super().build()
            self.criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.5)

    registered("hides", Hides)
    with pytest.raises(ContractError, match="criterion"):
        run_trial(make_spec("hides"))

    class Hidden(Method):
        def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
            yield Stage("train", 1, select=False)

    registered("hidden", Hidden)
    with pytest.raises(UserError, match="no stage whose epochs may be selected"):
        run_trial(make_spec("hidden"))


def test_a_stage_without_epochs_offers_a_variant_to_selection(make_spec: Any, registered: Any) -> None:
    class Variants(Method):
        def build(self) -> None:
            super().build()
            self.register_buffer("shift", torch.zeros(8))

        def classify(self, features: torch.Tensor) -> torch.Tensor:
            return super().classify(features) + self.shift

        def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
            yield Stage("train", 2, select=False)
            for number in range(3):
                self.shift[number] = 1e4
                yield Stage(f"variant{number}", 0)
                self.shift[number] = 0
            yield Stage("plain", 0)

    registered("variants", Variants)
    spec = make_spec("variants")
    run_trial(spec)
    result = json.loads((spec.folder / "result.json").read_text())
    scores = {row["stage"]: np.mean(row["val_recall"]) for row in map(json.loads, _lines(spec.folder))}
    assert all(scores[f"variant{number}"] == pytest.approx(1 / 8) for number in range(3))
    assert result["selection"]["score"] == pytest.approx(max(scores[name] for name in scores if name != "train"))
    assert [stage["steps"] for stage in result["cost"]["stages"]][1:] == [0, 0, 0, 0]
    assert result["cost"]["cpu_seconds"] > 0 and all(stage["seconds"] > 0 for stage in result["cost"]["stages"])


@pytest.mark.parametrize("select", [False, True])
def test_a_shared_stage_keeps_what_was_selected_before(make_spec: Any, registered: Any, select: bool) -> None:
    class Late(Method):
        def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
            yield Stage("train", 4)
            with torch.no_grad():
                self.head.weight.zero_()
            still = {"produces": ("backbone", "head"), "keep": "best", "lr": 1e-9}
            yield Stage("shared", 2, recipe={"objective": "still"}, select=select, **still)

    registered("late", Late)
    for number in range(2):
        spec = make_spec("late")
        spec = replace(spec, folder=spec.folder.with_name(f"trial{number}"))
        run_trial(spec)
        result = json.loads((spec.folder / "result.json").read_text())
        rows = [json.loads(line) for line in _lines(spec.folder)]
        best = max(np.mean(row["val_recall"]) for row in rows if select or row["stage"] == "train")
        assert result["selection"]["score"] == pytest.approx(best) == result["val"]["mean_class_accuracy"]
        assert result["selection"]["stage"] == "train"
        assert result["cost"]["stages"][1]["cached"] is bool(number)


def test_the_run_that_a_method_sees_holds_no_test_data(
    make_spec: Any, registered: Any, tiny_dataset: SplitDataset
) -> None:
    secret_ids = set(tiny_dataset.manifest.part("test")[0].tolist())
    found: list[str] = []

    def walk(value: Any, path: str, seen: set[int]) -> None:
        if id(value) in seen or isinstance(value, type | torch.Tensor | str | int | float) or value is None:
            return
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            if value.dtype.kind == "U" and secret_ids & set(value.ravel().tolist()):
                found.append(path)
            return
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, child in [*children, *getattr(value, "__dict__", {}).items()]:
            walk(child, f"{path}.{name}", seen)

    class Curious(Method):
        def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
            walk(run, "run", set())
            walk(self, "method", set())
            public = [name for name in dir(run) if not name.startswith("_")]
            assert not [name for name in public if "test" in name]
            with pytest.raises(IndexError):
                run.features(np.array([len(run.labels)]))
            yield Stage("train", 1)

    registered("curious", Curious)
    run_trial(make_spec("curious"))
    gc.collect()
    assert found == []


def test_busy_foreign_and_changed_folders_are_left_alone(
    make_spec: Any, registered: Any, tiny_protocol: Protocol
) -> None:
    spec = make_spec()
    with claimed(lock_of(spec.folder)):
        assert run_trial(spec) == "busy"
        with pytest.raises(UserError, match=f"in use by process {os.getpid()} on"):
            discard(spec.folder)

    class Suspended(Method):
        """Another process takes the trial over in its second epoch."""

        def on_epoch_end(self, report: Any) -> None:
            if report.epoch == 1:
                lock_of(lost.folder).write_text("of another process")

    registered("suspended", Suspended)
    lost = make_spec("suspended")
    assert run_trial(lost) == "busy"
    assert [json.loads(line)["epoch"] for line in _lines(lost.folder)] == [0]
    assert lock_of(lost.folder).read_text() == "of another process"
    run_trial(spec)
    (spec.folder / "result.json").unlink()
    other = replace(spec, protocol=replace(tiny_protocol, lr=0.5))
    with pytest.raises(UserError, match=r"another run \(other protocol_digest\)"):
        run_trial(other)
    spec = make_spec()
    path = spec.folder.parent / "split.csv"
    path.write_text(path.read_text().replace("train", "test", 1))
    with pytest.raises(UserError, match=r"split\.csv was changed"):
        run_trial(spec)


@pytest.mark.parametrize("operation", ["rename", "rmtree"])
def test_a_discarded_trial_is_there_in_whole_or_not_at_all(
    operation: str, make_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for a process that ends while it discards."""

    def kill(*_: Any) -> None:
        raise Killed

    spec = make_spec()
    for name in ("result.json", "predictions.npz"):
        (spec.folder / name).write_text("{}")
    with monkeypatch.context() as patched:
        patched.setattr(*{"rename": (Path, "rename"), "rmtree": (shutil, "rmtree")}[operation], kill)
        with pytest.raises(Killed):
            discard(spec.folder)
    there = [path.name for path in spec.folder.glob("*")]
    assert len(there) == (2 if operation == "rename" else 0)
    discard(spec.folder)
    assert [path.name for path in spec.folder.parent.iterdir() if path.is_dir()] == []


def _lines(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text().splitlines()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_version_says_whether_code_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    monkeypatch.setattr(trial, "ltbench", SimpleNamespace(__file__=str(tmp_path / "__init__.py"), __version__="1.0"))
    assert trial.code_version() == "1.0"
    for name in ("methods/ce.py", "benchmarks/boards/a/board.md", "docs/index.md", "setup.cfg"):
        write_bytes(tmp_path / name, b"")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    clean = trial.code_version()
    assert clean.startswith("1.0+") and "dirty" not in clean
    for name in ("mine.py", "benchmarks/boards/a/board.md", "docs/index.md", "docs/new.py", "results/x.json"):
        write_bytes(tmp_path / name, b"other")
        assert trial.code_version() == clean
    for name, again in (("setup.cfg", b""), ("methods/ce.py", b""), ("methods/new.py", None)):
        write_bytes(tmp_path / name, b"other")
        assert trial.code_version() == f"{clean}-dirty"
        (tmp_path / name).unlink() if again is None else write_bytes(tmp_path / name, again)
    assert trial.code_version() == clean
