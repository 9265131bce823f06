"""The command line on every kind of dataset: each is trained on from files in its own format."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltbench.benchmarks import run
from ltbench.benchmarks.analysis.records import Record, find_records
from ltbench.benchmarks.training.planning.plan import plan
from ltbench.benchmarks.training.request import Request
from ltbench.datasets.splits.manifest import Manifest
from ltbench.errors import UserError

SHORT = "--method ce --trials 1 --epochs 1 --batch-size 16 --jobs 1 --precision fp32 --preset quick --image-size 16"
CLASSES_2019 = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")


def _train(out: Path, *arguments: str) -> list[Record]:
    assert run.main([*SHORT.split(), *arguments, "--out", str(out)]) == 0
    return list(find_records(out))


def _images(folder: Path, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)


def _digits(root: Path) -> list[str]:
    return ["--ratio", "5", "--n-max", "20"]


def _medmnist(root: Path) -> list[str]:
    rng, arrays = np.random.default_rng(0), {}
    for part, count in {"train": 40, "val": 16, "test": 16}.items():
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 8).astype(np.uint8)[:, None]
    np.savez(root / "bloodmnist.npz", **arrays)
    return ["--dataset-option", "set=bloodmnist"]


def _table(root: Path) -> list[str]:
    names = [f"{number:02d}.png" for number in range(60)]
    _images(root / "img", names)
    rows = [f"img/{name},{'rare' if row % 3 else 'common'},{row // 2}" for row, name in enumerate(names)]
    (root / "table.csv").write_text("\n".join(["image,diagnosis,group", *rows]))
    return ["--dataset-option", "label=diagnosis", "--split", "paper"]


def _folders(root: Path) -> list[str]:
    _images(root, [f"{'benign' if number < 40 else 'malign'}/{number}.jpg" for number in range(60)])
    return []


def _ham10000(root: Path) -> list[str]:
    names = [f"ISIC_{number:07d}" for number in range(70)]
    _images(root / "HAM10000_images_part_1", [f"{name}.jpg" for name in names])
    classes = ("nv", "mel", "bkl", "bcc", "akiec", "vasc", "df")
    rows = [f"HAM_{row},{name},{classes[row % 7]}" for row, name in enumerate(names)]
    (root / "HAM10000_metadata.csv").write_text("\n".join(["lesion_id,image_id,dx", *rows]))
    return []


def _isic_archive(root: Path) -> list[str]:
    """Two classes of ISIC 2019 and one of the archive are there; the eleven others are not."""
    known = {f"ISIC_{number:07d}": ("NV", "MEL")[number % 2] for number in range(40)}
    added = [f"ISIC_9{number:06d}" for number in range(20)]
    _images(root / "ISIC_2019_Training_Input", [f"{name}.jpg" for name in known])
    _images(root / "ISIC_Archive", [f"{name}.jpg" for name in added])
    truth = [f"{name},{','.join(str(int(own == column)) for column in CLASSES_2019)}" for name, own in known.items()]
    (root / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(["image," + ",".join(CLASSES_2019), *truth]))
    lesions = [f"{name},{'L0' * (name == 'ISIC_0000000')}" for name in known]
    (root / "ISIC_2019_Training_Metadata.csv").write_text("\n".join(["image,lesion_id", *lesions]))
    header = ["name", *(f"meta.clinical.{column}" for column in ("diagnosis", "lesion_id", "patient_id"))]
    rows = [f"{name},angioma,," for name in added] + ["ISIC_9999999,lichenoid keratosis,,"]
    (root / "additional_data.csv").write_text("\n".join([",".join(header), *rows]))
    return ["--allow-missing"]


@pytest.mark.parametrize(
    ("name", "make", "classes"),
    [
        ("digits", _digits, 10),
        ("medmnist", _medmnist, 8),
        ("csv", _table, 2),
        ("imagefolder", _folders, 2),
        ("ham10000", _ham10000, 7),
        ("isic_archive", _isic_archive, 3),
    ],
)
def test_every_dataset_trains(name: str, make: Callable[[Path], list[str]], classes: int, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    options = make(root)
    where = [] if name == "digits" else ["--data-root", str(root)]
    (record,) = _train(tmp_path / "results", "--dataset", name, *where, *options)
    assert record.result.data.dataset == name and len(record.result.data.class_names) == classes
    split = Manifest.read(record.folder.parent / "split.csv")
    assert split.class_counts("train", classes).tolist() == list(record.result.data.class_counts)
    assert len(record.predictions()["test_labels"]) == len(split.part("test")[0]) > 0


def test_a_common_test_set_over_ratios(tmp_path: Path) -> None:
    common = ["--dataset", "digits", "--common-test", "--n-max", "auto", "--ratio", "2", "10"]
    first, second = sorted(_train(tmp_path, *common), key=lambda record: record.result.data.ratio)
    splits = [Manifest.read(record.folder.parent / "split.csv") for record in (first, second)]
    for part in ("val", "test"):
        np.testing.assert_array_equal(*(split.part(part)[0] for split in splits))
    train = [set(split.part("train")[0].tolist()) for split in splits]
    assert train[1] < train[0] and max(first.result.data.class_counts) == max(second.result.data.class_counts)


@pytest.mark.parametrize(
    "ratios", [("1", "10"), ("natural", "4", "10")]
)  # 14 and 28 images of the largest class, alone
def test_auto_is_common_to_ratios_also_where_it_is_the_default(ratios: tuple[str, ...], tmp_path: Path) -> None:
    _folders(tmp_path)
    request = Request(ratios=ratios, dataset="imagefolder", data_root=tmp_path, common_test=True, preset="quick")
    datasets = plan(replace(request, methods="ce")).datasets
    typed = plan(replace(request, methods="ce", ratios=ratios[-2:], n_max="auto")).datasets
    assert [each.manifest.digest for each in datasets[-2:]] == [each.manifest.digest for each in typed]
    assert [each.natural for each in datasets] == [ratio == "natural" for ratio in ratios]


def test_a_folder_of_one_split_is_recorded_with_the_ratio_that_it_has(tmp_path: Path) -> None:
    _ham10000(tmp_path)
    for part, numbers in {"train": [*range(43), 49], "val": range(43, 49), "test": range(50, 70)}.items():
        np.save(tmp_path / f"{part}.npy", [f"ISIC_{number:07d}.jpg" for number in numbers])
    request = Request(["ce"], dataset="ham10000", data_root=tmp_path, split_dir=tmp_path, preset="quick")
    with pytest.raises(UserError, match="use --ratio natural, not 100"):
        plan(replace(request, ratios=[100, 500]))
    (dataset,) = plan(request).datasets
    assert (dataset.split, dataset.natural, dataset.ratio) == ("published", True, 1.33)  # 8 to 6


def test_a_shared_stage_that_was_chosen_on_other_validation_images_is_computed_anew(tmp_path: Path) -> None:
    options = ["--dataset", "csv", "--data-root", str(tmp_path), *_table(tmp_path)]
    (first,) = _train(tmp_path / "results", *options)
    split = Manifest.read(first.folder.parent / "split.csv")
    for image_id in split.part("val")[0]:
        path = tmp_path / image_id
        Image.open(path).convert("L").save(path)
    for method in ("ce", "crt"):
        again = [*SHORT.split(), *options, "--out", str(tmp_path / "results"), "--method", method, "--fresh"]
        assert run.main(again) == 0
    records = {record.result.method: record.result for record in find_records(tmp_path / "results")}
    assert [records[name].cost.stages[0].cached for name in ("ce", "crt")] == [False, True]
    assert records["ce"].selection.score == records["ce"].val["mean_class_accuracy"]


def test_other_pixels_are_another_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images changed in place: what is done is not taken for theirs, and rows of both are not in one table."""
    options = ["--dataset", "csv", "--data-root", str(tmp_path), *_table(tmp_path)]
    out = tmp_path / "results"
    (before,) = _train(out, *options)
    (tmp_path / "img" / "00.png").touch()
    assert len(_train(out, *options)) == 1  # done
    for path in (tmp_path / "img").iterdir():
        Image.open(path).convert("L").save(path)
    capsys.readouterr()
    command = [*SHORT.split(), *options, "--out", str(out)]
    assert run.main(command) == 2
    assert "was run on other pixels of the same images" in capsys.readouterr().err
    assert run.main([*command, "--method", "rs"]) == 0
    printed = capsys.readouterr().out
    assert "other pixels of the same images" in printed and printed.count("### ") == 2
    assert "different labels in one group: 20 (first: img/01.png rare, img/00.png common)" in printed
    assert run.main([*command, "--fresh"]) == 0
    (after,) = [record for record in find_records(out) if record.result.method == "ce"]
    assert after.result.data.pixels != before.result.data.pixels
