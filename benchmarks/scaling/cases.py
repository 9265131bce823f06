"""What is measured against size: of the data, of methods between stages, of validation and of the tables.

A case is prepared at one of three sizes and then timed; nothing is said by its numbers but how long they took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Body = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A computation that a large dataset makes long.

    Attributes
    ----------
    prepare : size and an empty folder to what is timed
    unit : what a size counts
    sizes : three, each twice the one before
    """

    prepare: Callable[[int, Path], Body]
    unit: str
    sizes: tuple[int, int, int]


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _labels(images: int, classes: int) -> np.ndarray:
    """Return class ids, int64 [n], of which every class has some and the first many."""
    ids = (classes * _rng().random(images) ** 3).astype(np.int64)
    ids[: min(images, classes)] = np.arange(min(images, classes))
    return ids


def manifest(images: int, folder: Path) -> Body:
    """Write a split of 2,000 classes, and read it as each of five trials does."""
    from ltbench.datasets.splits.manifest import Manifest

    labels, ids = _labels(images, 2000), np.array([f"image{number:07d}" for number in range(images)])
    names = np.array([f"class{label:04d}" for label in range(2000)])[labels]
    split, path = Manifest(ids, labels, names, ids, np.resize(["train", "val", "test"], images)), folder / "split.csv"
    split.write(path)
    return lambda: [Manifest.verify(path, split.digest) for _ in range(5)]


def split_by_image(classes: int, folder: Path) -> Body:
    """Draw validation, test and training images, 10 of each class."""
    from ltbench.datasets.splits.longtail import split_by_image

    labels, counts = np.arange(10 * classes) % classes, np.full(classes, 6)
    return lambda: split_by_image(labels, counts, 2, 2, _rng())


def split_by_lesion(images: int, folder: Path) -> Body:
    """Draw whole lesions of one class, none of which has an odd number of images, into parts that have."""
    from ltbench.datasets.splits.longtail import split_by_lesion

    sizes = _rng().choice([2, 4, 6, 8], images // 5)
    lesions, labels = np.repeat(np.arange(len(sizes)), sizes), np.zeros(sizes.sum(), dtype=np.int64)
    train, val, test = (int(share * len(labels)) | 1 for share in (0.6, 0.1, 0.2))
    return lambda: split_by_lesion(labels, lesions, np.array([train]), val, test, _rng())


def split_by_group(images: int, folder: Path) -> Body:
    """Draw folds, and validation of one of them, of patients with images of several classes, of 8,142 at most."""
    from ltbench.datasets.splits.folds import fold_numbers
    from ltbench.datasets.splits.groups import draw_groups

    classes = min(8142, images // 6)
    labels, names = np.arange(images) % classes, [f"class{label:04d}" for label in range(classes)]
    patients = _rng().permutation(images // 2).repeat(2).astype(str)
    wanted = np.maximum(np.bincount(labels) // 10, 1)

    def body() -> None:
        rest = fold_numbers(labels, patients, 2, _rng(), names) == 0
        draw_groups(labels[rest], patients[rest], wanted, _rng(), names)

    return body


def near_duplicates(images: int, folder: Path) -> Body:
    """Find the near-duplicates of images whose hashes have some bits in common, as those of one kind do."""
    from ltbench.datasets.checks.near_duplicates import near_pairs

    hashes = _rng().random((images, 64)) < np.linspace(0.35, 0.65, 64)
    thumbs = _rng().integers(0, 256, (images, 16, 16), dtype=np.uint8)
    return lambda: near_pairs(hashes, thumbs)


def image_store(images: int, folder: Path) -> Body:
    """Decode images of 16 pixels into a store."""
    from ltbench.benchmarks.scaling.random_images import RandomImages
    from ltbench.datasets.images.store import StoreBuilder

    builder = StoreBuilder(RandomImages(images), 16, folder)
    return lambda: builder.build(np.arange(images), quiet=True)


def prototypes(classes: int, folder: Path) -> Body:
    """Choose anchors and queries, and draw an epoch of balanced classes, of 10 images a class with 64 features."""
    from ltbench import samplers

    labels, features = np.arange(10 * classes) % classes, _rng().normal(size=(10 * classes, 64)).astype(np.float32)
    counts, information = np.full(classes, 2), _rng().random(10 * classes)

    def body() -> None:
        samplers.select_anchors(features, labels, counts)
        samplers.select_queries(information, labels, counts)
        samplers.class_aware_stream(labels, 4, len(labels), _rng())

    return body


def nearest_prototype(classes: int, folder: Path) -> Body:
    """Find the nearest class mean of 1,000 images with 64 features."""
    from ltbench.samplers import nearest_prototype

    features, means = _rng().normal(size=(1000, 64)), _rng().normal(size=(classes, 64))
    return lambda: nearest_prototype(features, means)


def local_density(images: int, folder: Path) -> Body:
    """Compute CurriculumNet's density of one class of images with 64 features: by definition from all pairs."""
    from ltbench.samplers import local_density

    features = _rng().normal(size=(images, 64))
    return lambda: local_density(features)


def mc_dropout(images: int, folder: Path) -> Body:
    """Score images by the mutual information of 10 passes at 2,000 classes, as a query of `flex` does."""
    import torch

    from ltbench.benchmarks.scaling.random_images import RandomImages
    from ltbench.benchmarks.training.inference import Inference
    from ltbench.benchmarks.training.protocol import protocol_for
    from ltbench.benchmarks.training.trial import build_method
    from ltbench.datasets.images.part import ImagePart
    from ltbench.datasets.images.store import StoreBuilder
    from ltbench.methods import configure, registry
    from ltbench.samplers import mutual_information

    flex, device = registry.get("flex"), torch.device("cpu")
    protocol = protocol_for("quick", image_size=16, batch_size=64, precision="fp32")
    source = RandomImages(images)
    store = StoreBuilder(source, 16, folder).build(np.arange(images), quiet=True)
    part = ImagePart(store, source.ids, source.labels, device)
    method = build_method(flex, configure("flex", flex.Config, "quick", {}), protocol, np.full(2000, 1), seed=0)
    inference = Inference(method, protocol, device)
    return lambda: inference.mc_scores(part, np.arange(images), 10, 0, mutual_information)


def validation(images: int, folder: Path) -> Body:
    """Judge an epoch at 8,142 classes by predictions and losses."""
    from ltbench.benchmarks.training.validation import predictions_and_losses

    block, labels = _rng().normal(size=(1000, 8142)).astype(np.float32), _labels(images, 8142)
    return lambda: predictions_and_losses(labels, _repeated(block, images))


def _repeated(block: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    for start in range(0, rows, len(block)):
        yield block[: rows - start]


def evaluation(classes: int, folder: Path) -> Body:
    """Compute all metrics of 4,000 images, and write them as a record holds them."""
    from ltbench.benchmarks.analysis.metrics import evaluate, frequency_groups
    from ltbench.files import write_json

    labels = _labels(4000, classes)
    logits = _rng().normal(size=(4000, classes)).astype(np.float32)
    groups = frequency_groups(np.bincount(labels, minlength=classes).tolist())
    return lambda: write_json(folder / "result.json", evaluate(labels, logits, groups))


def evaluation_of_images(images: int, folder: Path) -> Body:
    """Compute all metrics at 8,142 classes."""
    from ltbench.benchmarks.analysis.metrics import evaluate, frequency_groups

    labels, logits = _labels(images, 8142), _rng().standard_normal((images, 8142), dtype=np.float32)
    return lambda: evaluate(labels, logits, frequency_groups(np.bincount(labels).tolist()))


def interval(classes: int, folder: Path) -> Body:
    """Compute the interval of the mean per-class accuracy of 5 trials on 5 images a class."""
    from ltbench.benchmarks.analysis.statistics.intervals import image_weights, interval

    labels = np.arange(5 * classes) % classes
    scores = (_rng().random((5, len(labels))) < 0.5) * image_weights(labels)
    return lambda: interval(scores, labels)


def predictions(images: int, folder: Path) -> Body:
    """Write and read the logits of validation and test at 8,142 classes, as a trial keeps them."""
    from ltbench.benchmarks.analysis.record_files.predictions import read_predictions
    from ltbench.benchmarks.analysis.record_files.stored_logits import stored
    from ltbench.files import write_arrays

    labels, logits = _labels(images, 8142), _rng().normal(size=(images, 8142)).astype(np.float32)

    def body() -> None:
        part = {"ids": np.arange(images).astype(str), "labels": labels, **stored(logits)}
        arrays = {f"{name}_{key}": values for name in ("val", "test") for key, values in part.items()}
        write_arrays(folder / "predictions.npz", arrays)
        read_predictions(folder / "predictions.npz")

    return body


CASES = {
    "manifest": Case(manifest, "images", (200_000, 400_000, 800_000)),
    "split-by-image": Case(split_by_image, "classes", (8_000, 16_000, 32_000)),
    "split-by-lesion": Case(split_by_lesion, "images", (50_000, 100_000, 200_000)),
    "split-by-group": Case(split_by_group, "images", (50_000, 100_000, 200_000)),
    "near-duplicates": Case(near_duplicates, "images", (100_000, 200_000, 400_000)),
    "image-store": Case(image_store, "images", (10_000, 20_000, 40_000)),
    "prototypes": Case(prototypes, "classes", (8_000, 16_000, 32_000)),
    "nearest-prototype": Case(nearest_prototype, "classes", (4_000, 8_000, 16_000)),
    "local-density": Case(local_density, "images", (4_000, 8_000, 16_000)),
    "mc-dropout": Case(mc_dropout, "images", (1_000, 2_000, 4_000)),
    "validation": Case(validation, "images", (4_000, 8_000, 16_000)),
    "evaluation": Case(evaluation, "classes", (2_000, 4_000, 8_000)),
    "evaluation-images": Case(evaluation_of_images, "images", (21_875, 43_750, 87_500)),
    "interval": Case(interval, "classes", (8_000, 16_000, 32_000)),
    "predictions": Case(predictions, "images", (4_000, 8_000, 16_000)),
}
