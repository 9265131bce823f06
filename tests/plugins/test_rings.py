"""A dataset without a folder, as one plug-in file: loaded by name with its options, and trained on."""

from pathlib import Path

import pytest

import ltbench
from ltbench.benchmarks.cli.dataset_info import option_rows
from ltbench.datasets.loading import load, resolve
from ltbench.errors import UserError
from ltbench.registry import load_plugin

FILE = Path(__file__).with_name("rings.py")


@pytest.fixture(autouse=True)
def _loaded() -> None:
    load_plugin(FILE)


def test_no_folder_is_asked_for(tmp_path: Path) -> None:
    assert resolve("rings", None) == resolve("rings", tmp_path) == ("rings", None)
    dataset = load("rings", image_size=16, cache=tmp_path)
    assert dataset.class_counts.tolist() == [30, 15, 8] and dataset.source.special_classes == ("2 rings",)


def test_its_options_are_checked_and_listed(tmp_path: Path) -> None:
    assert option_rows("rings") == [["classes=", "3", "2 .. 6", "most rings of an image"]]
    assert len(load("rings", options={"classes": "4"}, cache=tmp_path).class_counts) == 4
    with pytest.raises(UserError, match="rings: classes must be at least 2 and at most 6, got 7"):
        load("rings", options={"classes": "7"})
    with pytest.raises(UserError, match=r"unknown option of dataset rings 'clases'; did you mean 'classes'\?"):
        load("rings", options={"clases": "4"})


def test_a_trial_on_it(tmp_path: Path) -> None:
    request = ltbench.Request(
        methods=["ce"],
        plugins=[FILE],
        dataset="rings",
        trials=1,
        protocol={"epochs": 2, "image_size": 16, "batch_size": 16},
        device="cpu",
        jobs=1,
        out=tmp_path,
    )
    (record,) = ltbench.run(request).records
    assert record.result.data.dataset == "rings" and record.result.trial == 0
