"""The paper's numbers: what is printed, what contradicts itself, and ours beside them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ltbench.benchmarks.analysis.published import beside, effective_images, half_width, misprints, read_published
from ltbench.benchmarks.analysis.records import find_records
from ltbench.benchmarks.analysis.rendering import render
from ltbench.benchmarks.analysis.standings import settings_of
from ltbench.benchmarks.training.protocol import PRESETS
from ltbench.methods import available, configure, registry

ARCHIVE_TEST = (2575, 905, 679, 293, 174, 132, 77, 54, 51, 50, 7, 6, 3, 3)
ARCHIVE_GROUPS = {"head": [0, 1, 2, 3], "medium": [4, 5, 6, 7], "tail": [8, 9, 10, 11, 12, 13]}


def test_the_file_holds_all_that_the_tables_print() -> None:
    published = read_published()
    assert published.groupby("table").size().to_dict() == {1: 33, 2: 24, 3: 10}
    assert not published.duplicated(["table", "method", "changed", "ratio", "metric"]).any()
    assert set(published["method"]) <= set(available())
    assert published["delta"].notna().sum() == 33 and published["source"].str.contains("MICCAI 2022, Table").all()
    for changed in published["changed"].unique():
        configure("flex", registry.get("flex").Config, "paper", dict(text.split("=") for text in changed.split()))
    published = read_published()
    assert misprints(published[published["table"] == 1]) == [
        "Table 1, RS at ratio 100: prints +4.96, is +5.96",
        "Table 1, RS at ratio 500: prints +2.82, is +2.42",
    ]
    assert misprints(published[published["table"] == 2]) == ["Table 2, CBLoss: prints All 62.89, is 62.99"]
    assert misprints(published[published["table"] == 3]) == []
    published = read_published()
    published.loc[(published["method"] == "flex") & (published["ratio"] == "200"), "delta"] += 0.01
    assert sum("Ours at ratio 200" in line for line in misprints(published)) == 1


def test_effective_images_and_half_the_interval_by_hand() -> None:
    labels = np.repeat(np.arange(14), ARCHIVE_TEST)
    for line in read_published().query("table == 2").itertuples():
        assert line.images == pytest.approx(effective_images(labels, ARCHIVE_GROUPS, line.metric), abs=0.6)
    balanced = np.repeat(np.arange(8), 100)
    assert effective_images(balanced, {}, "mean_class_accuracy") == 800
    images = stats.norm.ppf(0.975) * np.sqrt(0.6 * 0.4 / 800)
    assert half_width(0.6, np.nan, 1, 800) == pytest.approx(images)
    trials = stats.t.ppf(0.975, 4) * 0.02 / np.sqrt(5)
    assert half_width(0.6, 0.02, 5, 800) == pytest.approx(np.hypot(trials, images))


def test_rows_meet_their_own(tmp_path: Path, add_record: Callable[..., dict[str, Any]]) -> None:
    hyperparameters = {"pretrain": "ssl", "selection": "edge", "query": "none"}
    for trial in range(2):
        add_record(tmp_path, "ce", trial, 0.55, ratio=100.0)
        add_record(tmp_path, "rs", trial, 0.99, ratio=500.0, dataset="isic2019")
        changed = {"selection": "edge", "query": "none"}
        add_record(tmp_path, "flex", trial, 0.5, ratio=100.0, changed=changed, hyperparameters=hyperparameters)
        add_record(tmp_path, "flex", trial, 0.5, ratio=100.0, changed={"anchor_scale": 0.2})
        add_record(tmp_path, "rw", trial, 0.5, ratio=30.0)
    tables = beside(settings_of(find_records(tmp_path)), PRESETS)
    shown = {table.title.partition(", beside")[0]: table for table in tables if "toy" in " ".join(table.notes)}
    assert sorted(shown) == ["Ju et al., MICCAI 2022, Table 1", "Ju et al., MICCAI 2022, Table 3"]
    assert shown["Ju et al., MICCAI 2022, Table 1"].frame["method"].tolist() == ["ce"]
    (edge,) = shown["Ju et al., MICCAI 2022, Table 3"].frame.to_dict("records")
    assert edge["label"] == "SSL, edge, none" and edge["published"] == pytest.approx(0.5262)
    assert edge["difference"] == pytest.approx(edge["ours"] - 0.5262) and edge["overlap"]
    (real,) = (table for table in tables if "other data" not in " ".join(table.notes))  # Table 2 has no row of ours
    assert real.frame["overlap"].tolist() == [False]
    assert sum("Misprint" in note for note in real.notes) == 2
    (way,) = [note for note in real.notes if note.startswith("Ours were made in another way: ")]
    for departure in ("backbone test_resnet, not resnet18", "image_size 40, not 224", "largest class 300, not 5000"):
        assert departure in way


def test_natural_data_alone_meet_the_table_of_natural_data(
    tmp_path: Path, add_record: Callable[..., dict[str, Any]]
) -> None:
    add_record(tmp_path, "ce", 0, 0.5, dataset="isic_archive", ratio=100.0)
    add_record(tmp_path, "rs", 0, 0.5, dataset="isic_archive", ratio=1001.0, natural=True)
    tables = beside(settings_of(find_records(tmp_path)), PRESETS)
    shown = {number: frame for table in tables for number, frame in _ours(table)}
    assert set(shown[2]["method"]) == {"rs"} and len(shown[2]) == 4 and set(shown[1]["method"]) == {"ce"}


def test_a_class_without_a_test_image_is_no_number_and_has_its_reason(
    tmp_path: Path, add_record: Callable[..., dict[str, Any]]
) -> None:
    assert effective_images(np.repeat([0, 1], 5), {"tail": [2, 1]}, "tail") == 0 and np.isnan(half_width(0.5, 0, 2, 0))
    natural: dict[str, Any] = {"dataset": "isic_archive", "ratio": 1001.0, "natural": True}
    for trial in range(2):
        add_record(tmp_path, "rs", trial, 0.5, test_counts=(20, 20, 20, 0), **natural)
    tables = beside(settings_of(find_records(tmp_path)), PRESETS)
    (table,) = (table for table in tables if "Table 2" in table.title)
    texts = {line[3].text: [cell.text for cell in line[5:8]] for line in table.cells}
    assert texts["tail"] == texts["mean of group means"] == ["n/a"] * 3 and "n/a" not in texts["head"]
    assert not any(cell.strong for line in table.cells for cell in line if cell.text == "n/a")
    shown = render([table], "github")
    assert re.search(r"n/a, no image of class d: tail\.", shown)
    assert not re.search(r"\bnan\b", shown) and not re.search(r"\bnan\b", render([table], "csv"))


def _ours(table: Any) -> list[tuple[int, Any]]:
    return [(int(table.frame["table"].iloc[0]), table.frame)] if "ours" in table.frame else []
