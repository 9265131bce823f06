"""The Python interface: a program without a guard runs trials side by side; its results as tables and values."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ltbench
from ltbench.benchmarks import run
from ltbench.benchmarks.analysis.standings import settings_of
from ltbench.benchmarks.executors.execution import Execution
from ltbench.benchmarks.training.planning.plan import plan

PROGRAM = """
import ltbench

protocol = {"epochs": 1, "image_size": 16, "batch_size": 16}
tiny = dict(n_max=30, val_per_class=3, test_per_class=4, protocol=protocol, dataset="synthetic", device="cpu")
results = ltbench.run(ltbench.Request(methods=["ce", "rs"], ratios=[5], trials=2, jobs=2, threads=1, **tiny))
print("trials:", *(record.result.trial for record in results.records))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results folder of a program that has no `if __name__ == "__main__"`."""
    where = tmp_path_factory.mktemp("program")
    (where / "program.py").write_text(PROGRAM)
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=where, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trials: 0 1 0 1\n"  # once: no worker has begun the program again
    return where / "results"


def test_results_are_tables_and_values(folder: Path) -> None:
    results = ltbench.load_results(folder)
    assert len(results.records) == 4
    table = results.table("overview")
    assert set(table["method"]) == {"ce", "rs"} and set(table["n"]) == {2} and set(table["ratio"]) == {5}
    assert len(results.where(method="ce", trial=1).records) == 1
    ranks = results.table("ranks")
    assert set(ranks["mean_rank"]) == set(ranks["rank"]) and ranks["rank"].sum() == 3 and set(ranks["ratio"]) == {5}
    predictions = results.where(method="ce").predictions("val")
    assert len(predictions) == 2 * 8 * 3 and {"trial", "id", "label", "predicted"} < set(predictions.columns)
    assert results.where(method="rs", trial=0).story() == {}
    with pytest.raises(ltbench.UserError, match="a story is of one trial, and these are 4"):
        results.story()
    with pytest.raises(ltbench.UserError, match="did you mean 'overview'"):
        results.table("overvieu")


def test_records_can_be_run_again_from_their_own_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = folder.glob("*/rs-*/trial1/config.json")
    assert run.main(["--config", str(path), "--jobs", "1", "--device", "cpu", "--out", str(tmp_path)]) == 0
    (again,) = ltbench.load_results(tmp_path).records
    assert again.folder.relative_to(tmp_path) == path.parent.relative_to(folder)
    (before,) = ltbench.load_results(folder).where(method="rs", trial=1).records
    assert again.result.test == before.result.test and again.result.data == before.result.data
    (path,) = folder.glob("*/rs-*/trial1/config.json")
    saved = tmp_path / "saved.yaml"
    options = ["--config", str(path), "--trials", "3", "--epochs", "2", "--set", "power=0.5", "--dry-run"]
    assert run.main([*options, "--fresh", "--weight-decay", "0.1", "--save-config", str(saved)]) == 0
    printed = capsys.readouterr().out
    assert "3 trials; cpu" in printed and "weight decay 0.1" in printed
    assert run.main(["--config", str(saved), "--no-fresh", "--dry-run", "--save-config", str(saved)]) == 0
    text = saved.read_text()
    assert "fresh: false\n" in text
    assert "trials: 3\n" in text and "epochs: 2\n" in text and "image_size: 16\n" in text and "power: '0.5'" in text


def test_where_splits_vary_a_trial_is_that_of_its_seed_and_rows_stay_paired(tmp_path: Path) -> None:
    tiny: dict[str, Any] = {"ratios": [5], "n_max": 30, "val_per_class": 3, "test_per_class": 4, "device": "cpu"}
    tiny |= {"dataset": "synthetic", "jobs": 1}
    short = {"epochs": 1, "image_size": 16, "batch_size": 16}
    varied = ltbench.Request(["ce", "rs"], trials=2, protocol={**short, "vary_split": True}, out=tmp_path / "a", **tiny)
    results = ltbench.run(varied)
    other = ltbench.run(ltbench.Request(["rs"], trials=[0], seed=1, protocol=short, out=tmp_path / "b", **tiny))
    columns = ["id", "label", *other.records[0].result.data.class_names]
    mine, again = results.where(method="rs", trial=1).predictions("test"), other.predictions("test")
    assert mine[columns].reset_index(drop=True).equals(again[columns].reset_index(drop=True))
    assert results.where(method="rs").records[0].result.split_digest != other.records[0].result.split_digest
    (setting,) = settings_of(results.records)
    first, second = setting.rows
    assert (first.test_ids == second.test_ids).all() and (first.tested == second.tested).all()
    assert first.tested.sum(axis=1).tolist() == [32, 32] and first.tested.shape[1] > 32
    assert first.accuracy.value == pytest.approx(first.values("mean_class_accuracy").mean(), abs=1e-12)
    resumed = Execution(plan(varied))
    assert {outcome.status for outcome in resumed.outcomes()} == {"skipped"}
    assert len(resumed.related()[0].records) == 4
    with pytest.raises(ltbench.UserError, match="--vary-split is for splits that are drawn here"):
        plan(ltbench.Request(["ce"], split="official", dataset="synthetic", protocol={"vary_split": True}))


def test_folds_of_own_images_keep_groups_together_and_are_pooled(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), ["image,label,group"]
    for number in range(42):
        name = ("common", "common", "other", "other", "common", "rare", "common")[number // 2 % 7]
        Image.fromarray(rng.integers(256, size=(20, 20, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{name},patient{number // 2}")
    (tmp_path / "images.csv").write_text("\n".join(rows), encoding="utf-8")
    short = {"epochs": 1, "image_size": 16, "batch_size": 8, "folds": 3}
    shared: dict[str, Any] = {"dataset": "csv", "data_root": tmp_path, "preset": "quick", "protocol": short}
    shared |= {"jobs": 1, "device": "cpu", "out": tmp_path / "results"}
    ltbench.run(ltbench.Request(["ce"], trials=[1], **shared))
    execution = Execution(plan(ltbench.Request(["ce"], **shared)))
    assert sorted(outcome.status for outcome in execution.outcomes()) == ["done", "done", "skipped"]
    results = ltbench.load_results(tmp_path / "results")
    assert [record.result.folds for record in results.records] == [3] * 3
    again = ltbench.run(ltbench.Request(["ce"], **shared | {"out": tmp_path / "again"}))
    assert again.predictions("test").equals(results.predictions("test"))
    ((row,),) = (setting.rows for setting in settings_of(results.records))
    assert len(row.test_ids) == 42 and row.lesions is not None and len(np.unique(row.lesions)) == 21
    assert row.accuracy.value == pytest.approx(row.values("mean_class_accuracy")[0])
    for options, said in (
        ({"trials": 5}, "a trial for each fold"),
        ({"trials": [3]}, "has the trials 0 to 2"),
        ({"test_per_class": 2}, "leave --test-per-class out"),
        ({"protocol": {**short, "vary_split": True}}, "leave --vary-split out"),
        ({"split": "paper"}, "keeps the images of a group together"),
        ({"split": "official"}, "--folds is for splits that are drawn here"),
        ({"protocol": {**short, "folds": 4}}, "class 'rare' has 3 groups, fewer than 4 folds; at most --folds 3"),
    ):
        with pytest.raises(ltbench.UserError, match=said):
            plan(ltbench.Request(["ce"], **{**shared, **options}))
