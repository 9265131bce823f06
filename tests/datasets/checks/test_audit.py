"""What an audit finds in a source of a few images, with every flaw planted by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltbench.datasets.checks.audit import Audit, audit, declared_split, imbalance
from ltbench.datasets.checks.image_facts import examine
from ltbench.datasets.sources._image_files import FileSource
from ltbench.datasets.sources.synthetic import Synthetic
from ltbench.datasets.splits.draw import make_split
from ltbench.datasets.splits.longtail import PARTS
from ltbench.datasets.splits.manifest import Manifest

IMAGES = {  # id: label, lesion, patient, part
    "train0": (0, "L0", "P0", "train"),
    "train1": (0, "L1", "P1", "train"),
    "train2": (0, "L2", "", "train"),
    "train3": (1, "L3", "", "train"),
    "val0": (0, "L4", "P1", "val"),
    "test_copy": (1, "L5", "", "test"),
    "test_saved_again": (0, "L6", "", "test"),
    "test_lesion": (0, "L1", "P1", "test"),
    "test_patient": (1, "L7", "P0", "test"),
    "test_clean": (1, "L8", "", "test"),
    "unused_truncated": (0, "L9", "", ""),
    "unused_tiny": (0, "L10", "", ""),
    "unused_wide": (0, "L11", "", ""),
    "unused_grey": (0, "L12", "", ""),
    "unused_missing": (0, "L13", "", ""),
}


class Planted(FileSource):
    """The images above, as PNG."""

    name = "planted"
    title = "Planted flaws"
    preset = "quick"
    has_lesion_ids = True
    class_names = ("common", "rare")
    remedy = "plant it again"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.folder = root
        self.ids = np.array(list(IMAGES))
        labels, lesions, patients, parts = zip(*IMAGES.values(), strict=True)
        self.labels = np.array(labels, dtype=np.int64)
        self.lesions, self.patients, self.parts = np.array(lesions), np.array(patients), np.array(parts)
        self.files = np.array([f"{image}.png" for image in IMAGES])
        self.present = np.array([(root / file).is_file() for file in self.files.tolist()])


@pytest.fixture
def source(tmp_path: Path) -> Planted:
    rng = np.random.default_rng(1)
    for image in IMAGES:
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((160, 120), Image.Resampling.BICUBIC).save(tmp_path / f"{image}.png")

    def changed(image: str) -> Image.Image:
        with Image.open(tmp_path / f"{image}.png") as opened:
            return opened.copy()

    changed("train0").save(tmp_path / "test_copy.png", compress_level=1)  # the same pixels in other bytes
    changed("train1").resize((120, 90)).save(tmp_path / "small.jpg", quality=60)
    (tmp_path / "small.jpg").rename(tmp_path / "test_saved_again.png")
    content = (tmp_path / "unused_truncated.png").read_bytes()
    (tmp_path / "unused_truncated.png").write_bytes(content[: len(content) // 2])
    changed("unused_tiny").resize((16, 12)).save(tmp_path / "unused_tiny.png")
    changed("unused_wide").resize((400, 60)).save(tmp_path / "unused_wide.png")
    changed("unused_grey").convert("L").save(tmp_path / "unused_grey.png")
    (tmp_path / "unused_missing.png").unlink()
    return Planted(tmp_path)


def _manifest(source: Planted) -> Manifest:
    return Manifest.from_source(source, {part: np.flatnonzero(source.parts == part) for part in PARTS})


def _audited(source: Planted) -> Audit:
    facts = examine(source, np.flatnonzero(source.present), workers=2)
    return audit(source, _manifest(source), facts)


def test_each_leak_is_found_for_its_reason(source: Planted) -> None:
    found = _audited(source).as_dict()["overlap"]["train/test"]
    assert found["images"] == {
        "id": [],
        "lesion": ["test_lesion"],
        "patient": ["test_lesion", "test_patient"],
        "content": ["test_copy"],
        "near": ["test_saved_again"],
    }
    assert found["leaked"]["beyond_lesions"] == 2 and found["leaked"]["any"] == 4
    assert found["total"] == found["examined"] == 5
    overlap = _audited(source).as_dict()["overlap"]
    assert overlap["train/val"]["images"]["patient"] == ["val0"] and overlap["val/test"]["leaked"]["any"] == 1


def test_the_same_pixels_are_no_near_duplicate_as_well(source: Planted) -> None:
    source.path(list(IMAGES).index("test_clean")).write_bytes(source.path(1).read_bytes())
    source.parts[list(IMAGES).index("test_saved_again")] = "train"  # near to train1, and so to its copy
    found = _audited(source).as_dict()["overlap"]["train/test"]
    assert found["images"]["content"] == ["test_copy", "test_clean"] and found["images"]["near"] == []


def test_without_lesion_ids_nothing_is_said_of_lesions(source: Planted) -> None:
    known = _audited(source).as_dict()["overlap"]["train/test"]
    source.has_lesion_ids, source.lesions = False, source.ids
    found = _audited(source).as_dict()["overlap"]["train/test"]
    for group in ("leaked", "images"):
        assert "lesion" in known[group] and known[group].keys() - found[group].keys() <= {"lesion", "beyond_lesions"}
        assert "lesion" not in found[group] and "beyond_lesions" not in found[group]
    assert found["leaked"]["any"] == 4  # test_lesion is of a patient that train has too


def test_contradicting_labels_are_found(source: Planted) -> None:
    source.labels[list(IMAGES).index("test_lesion")] = 1
    (lesion, copy) = _audited(source).as_dict()["conflicts"]
    assert lesion["what"] == "same lesion" and lesion["labels"] == ["common", "rare"]
    assert lesion["ids"] == ["train1", "test_lesion"]
    assert (copy["what"], copy["ids"], copy["parts"]) == ("same pixels", ["train0", "test_copy"], ["train", "test"])


def test_broken_and_odd_images_are_named(source: Planted) -> None:
    found = _audited(source).as_dict()
    (broken,) = found["unreadable"]
    assert broken["ids"] == ["unused_truncated"] and "unused_truncated.png" in broken["what"]
    odd = {finding["ids"][0]: finding["what"] for finding in found["odd"]}
    assert odd.keys() == {"unused_tiny", "unused_wide", "unused_grey"}
    assert "aspect ratio 5" in odd["unused_wide"] and "side 0.1" in odd["unused_tiny"]
    assert "mode L" in odd["unused_grey"]
    assert found["images"] == {"labelled": 15, "present": 14, "examined": 14}


def test_a_picture_turned_by_its_exif_data_is_the_picture_it_shows(source: Planted) -> None:
    lying = Image.open(source.path(0)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned back, clockwise
    lying.save(source.path(1), format="PNG", exif=exif)
    facts = examine(source, np.array([0, 1]))
    assert facts.contents[0] == facts.contents[1] and (facts.thumbs[0] == facts.thumbs[1]).all()
    assert facts.sizes[0].tolist() == facts.sizes[1].tolist()


def test_tables_alone_say_nothing_of_images(source: Planted) -> None:
    found = audit(source, _manifest(source))
    pair = found.as_dict()["overlap"]["train/test"]
    assert pair["examined"] == 0 and pair["images"].keys() == {"id", "lesion", "patient"}
    assert pair["leaked"].keys() == {"id", "lesion", "patient", "any"}
    assert found.duplicates == found.unreadable == found.odd == ()
    rows = {part: np.flatnonzero(source.parts == part) for part in PARTS}
    rows["test"] = np.append(rows["test"], 2)
    found = audit(source, Manifest.from_source(source, rows))
    assert found.as_dict()["overlap"]["train/test"]["images"]["id"] == ["train2"] and found.leaks


def test_declared_splits_are_those_of_a_run_and_need_no_image(source: Planted) -> None:
    numbers = {"n_max": "auto", "val_per_class": 1, "test_per_class": 1, "seed": 3}
    request = {"split": "paper", "split_dir": None, "ratio": 2.0, **numbers}
    found = declared_split(source, **request, allow_missing=True)
    assert found.digest == make_split(source, **request, allow_missing=True).digest
    assert "unused_missing" not in found.ids
    source.present[:] = False
    asked = {"split_dir": None, "ratio": "natural", "n_max": "auto", "val_per_class": 1, "test_per_class": 1, "seed": 0}
    manifest = declared_split(source, split="lesion", **asked)
    assert len(manifest.ids) == len(IMAGES) and not source.present.any()
    assert not len(audit(source, manifest).pairs[0].leaked["lesion"])


def test_images_without_files_and_classes_without_images() -> None:
    source = Synthetic()
    positions = np.arange(20)
    facts = examine(source, positions)
    assert (facts.errors == "").all() and (facts.files == "").all() and len(set(facts.contents.tolist())) == 20
    assert imbalance(np.array([50, 0, 5])) == 10 and imbalance(np.zeros(3, dtype=int)) is None
