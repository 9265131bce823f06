"""OLTR's modules against loops, and what its two stages start from and train."""

import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
from fake_run import FakeRun
from torch import Tensor, nn

from ltbench.errors import UserError
from ltbench.methods import Batch, Method, Progress, StageResult, Task, create
from ltbench.methods.oltr import CosNorm, MetaEmbedding, ModulatedAttention
from ltbench.methods.stages import Plateau, Pool

COUNTS = np.array([9, 5, 3, 1], dtype=np.int64)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS))
MAPS = [(1, 1), (2, 2), (7, 7), (14, 14), (5, 3)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def grid_of(size: tuple[int, int]) -> tuple[int, int]:
    return min(size[0], 7), min(size[1], 7)


def attention(channels: int, grid: tuple[int, int], *, learned: bool = True) -> ModulatedAttention:
    torch.manual_seed(0)
    built = ModulatedAttention(channels, grid).double()
    if learned:
        for number, layer in enumerate((built.mask, built.query, built.key, built.value)):
            layer.weight.data = 0.5 * normal(*layer.weight.shape, seed=10 + number)
            if layer.bias is not None:
                layer.bias.data = normal(*layer.bias.shape, seed=20 + number)
    return built


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def cell_bounds(cell: int, cells: int, positions: int) -> range:
    return range(math.floor(cell * positions / cells), math.ceil((cell + 1) * positions / cells))


def gate_by_loops(built: ModulatedAttention, maps: np.ndarray) -> np.ndarray:
    """Return s [H, W] of maps [C, H, W]."""
    (rows, columns), (channels, height, width) = built.grid, maps.shape
    pooled = np.zeros((channels, rows, columns))
    for i in range(rows):
        for j in range(columns):
            cell = maps[:, cell_bounds(i, rows, height), :][:, :, cell_bounds(j, columns, width)]
            pooled[:, i, j] = cell.mean(axis=(1, 2))
    weights = softmax(built.gate.weight.detach().numpy() @ pooled.reshape(-1) + built.gate.bias.detach().numpy())
    gate = np.zeros((height, width))
    for i in range(rows):
        for j in range(columns):
            places = [(p, q) for p in cell_bounds(i, rows, height) for q in cell_bounds(j, columns, width)]
            for place in places:
                gate[place] += weights[i * columns + j] / len(places)
    return gate


def attention_by_loops(built: ModulatedAttention, maps: Tensor) -> np.ndarray:
    def project(layer: nn.Conv2d, columns: np.ndarray) -> np.ndarray:
        bias = 0 if layer.bias is None else layer.bias.detach().numpy()[:, None]
        return layer.weight.detach().numpy()[:, :, 0, 0] @ columns + bias

    results = []
    for image in maps.detach().numpy():
        columns = image.reshape(len(image), -1)
        theta, phi, g = (project(layer, columns) for layer in (built.query, built.key, built.value))
        taken = np.zeros_like(g)
        for p in range(columns.shape[1]):
            weights = softmax(np.array([theta[:, p] @ phi[:, q] for q in range(columns.shape[1])]))
            taken[:, p] = sum(weight * g[:, q] for q, weight in enumerate(weights))
        added = project(built.mask, taken).reshape(image.shape)
        results.append(image + gate_by_loops(built, image) * added)
    return np.stack(results)


@pytest.mark.parametrize("size", MAPS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_attention_is_the_identity_at_first(size: tuple[int, int], channels: int) -> None:
    maps = normal(2, channels, *size)
    assert torch.equal(attention(channels, grid_of(size), learned=False)(maps), maps)


@pytest.mark.parametrize("grid", [None, (2, 2), (7, 7), (3, 4)])
@pytest.mark.parametrize("size", MAPS)
def test_attention_is_its_formula(size: tuple[int, int], grid: tuple[int, int] | None) -> None:
    built, maps = attention(4, grid or grid_of(size)), normal(2, 4, *size)
    np.testing.assert_allclose(built(maps).detach().numpy(), attention_by_loops(built, maps), rtol=1e-9, atol=1e-9)


def test_attention_takes_maps_in_any_memory_format_and_precision() -> None:
    built, maps = attention(4, (7, 7)), normal(2, 4, 7, 7)
    plain = built(maps)
    torch.testing.assert_close(built(maps.contiguous(memory_format=torch.channels_last)), plain)
    built.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = built(maps.bfloat16())
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, built(maps.bfloat16().float()))
    torch.testing.assert_close(built(100 * maps.float()).isfinite(), torch.ones(2, 4, 7, 7, dtype=torch.bool))


def head(dimension: int = 6, classes: int = 4, **options: Any) -> MetaEmbedding:
    torch.manual_seed(0)
    return MetaEmbedding(dimension, classes, **options).double()


def logits_by_loops(built: MetaEmbedding, features: Tensor, centroids: Tensor) -> np.ndarray:
    def linear(layer: nn.Linear, row: np.ndarray) -> np.ndarray:
        return layer.weight.detach().numpy() @ row + layer.bias.detach().numpy()

    memory, rows = centroids.detach().numpy(), []
    for v in features.detach().numpy():
        shares = softmax(linear(built.hallucinator, v))
        hallucinated = sum(share * centroid for share, centroid in zip(shares, memory, strict=True))
        selected = np.tanh(linear(built.selector, v))
        gamma = built.reachability / min(math.dist(v, centroid) for centroid in memory)
        u = gamma * (v + selected * hallucinated)
        scale = built.classifier.scale / (1 + math.sqrt(u @ u))
        rows.append([scale * u @ w / math.sqrt(w @ w) for w in built.classifier.weight.detach().numpy()])
    return np.array(rows)


@pytest.mark.parametrize("options", [{}, {"reachability": 3.0, "scale": 5.0}])
@pytest.mark.parametrize("classes", [2, 8, 10, 14])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_memory_head_is_its_formula(batch: int, classes: int, options: dict[str, float]) -> None:
    built, features, centroids = head(classes=classes, **options), normal(batch, 6), normal(classes, 6, seed=1)
    logits, expected = built(features, centroids).detach().numpy(), logits_by_loops(built, features, centroids)
    assert logits.dtype == np.float64
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [1e-6, 1.0, 100.0, 1e6])
def test_logits_are_bounded(size: float) -> None:
    built = head().float()
    logits = built(size * normal(64, 6).float(), size * normal(4, 6, seed=1).float())
    assert logits.isfinite().all() and logits.abs().max() <= 16 * (1 + 1e-6)
    aligned = built.classifier(1e6 * built.classifier.weight)
    torch.testing.assert_close(aligned.diagonal(), torch.full((4,), 16.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("offset", [0.0, 1e-7, 1e-5, 1e-3])
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_a_feature_on_a_centroid_stays_finite(offset: float, scale: float) -> None:
    built, centroids = head().float(), scale * normal(4, 6, seed=1).float()
    features = (centroids + offset).requires_grad_()
    logits = built(features, centroids)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    gradients = [features.grad, *(parameter.grad for parameter in built.parameters())]
    assert logits.isfinite().all() and all(each.isfinite().all() for each in gradients)
    assert built.gamma(features, centroids).max() <= 10 / 1e-6 * (1 + 1e-6)


def test_the_memory_head_under_autocast() -> None:
    built, features, centroids = head().float(), normal(5, 6).float(), normal(4, 6, seed=1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(built(features, centroids), built.float()(features, centroids))
        logits = built.classifier(features)
    assert logits.dtype == torch.float32 and torch.equal(logits, built.classifier(features))
    built = CosNorm(400, 10)
    assert [name for name, _ in built.named_parameters()] == ["weight"] and built.weight.shape == (10, 400)
    assert 0.045 < built.weight.abs().max() <= 1 / 20


# The method


def method_on(backbone: str | nn.Module = "test_resnet", image_size: int = 40, **options: Any) -> Method:
    torch.manual_seed(0)
    if isinstance(backbone, str):
        backbone = timm.create_model(backbone, num_classes=0)
    return create("oltr", Task(4, COUNTS, image_size), backbone, **options)


def images(count: int, seed: int = 3, size: int = 40) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def fake_run(method: Method) -> FakeRun:
    def features() -> np.ndarray:
        method.eval()
        with torch.no_grad():
            return method.features(images(len(LABELS))).numpy()

    return FakeRun(LABELS, features, epochs=12)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(
    ("backbone", "size", "grid"), [("test_resnet", 40, (2, 2)), ("test_resnet", 320, (7, 7)), ("resnet18", 64, (2, 2))]
)
def test_build_measures_the_map_and_leaves_the_backbone_as_it_was(
    backbone: str, size: int, grid: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    network = timm.create_model(backbone, num_classes=0)
    network.layer1.eval()
    before, modes = snapshot(network), [module.training for module in network.modules()]
    method = method_on(network, size)
    assert not changed(before, network) and [module.training for module in network.modules()] == modes
    width = network.num_features
    assert method.attention.grid == grid
    assert method.attention.gate.weight.shape == (grid[0] * grid[1], grid[0] * grid[1] * width)
    assert method.fc_add.weight.shape == (width, width) and method.centroids.shape == (4, width)
    method.eval()
    pictures = images(2, size=size)
    pooled = method.backbone(pictures)
    torch.testing.assert_close(method.features(pictures), method.fc_add(pooled).relu())
    assert method.predict(pictures).shape == (2, 4)


def test_the_first_stage_and_its_head_are_those_of_every_method() -> None:
    torch.manual_seed(0)
    plain = create("ce", Task(4, COUNTS, 40), timm.create_model("test_resnet", num_classes=0))
    method = method_on()
    assert torch.equal(method.head.weight, plain.head.weight) and torch.equal(method.head.bias, plain.head.bias)
    method = method_on()
    stage = next(method.stages(fake_run(method)))
    assert (stage.name, stage.select, stage.keep) == ("train", False, "best")
    before = snapshot(method)
    optimizer = torch.optim.Adam(stage.params, 1e-3)
    batch = Batch((images(8),), torch.from_numpy(LABELS[:8]), np.arange(8))
    stage.loss(batch, Progress(0, 1))["loss"].backward()
    optimizer.step()
    assert changed(before, method) == {"backbone", "head"}
    rest = (*method.attention.parameters(), *method.fc_add.parameters(), *method.memory.parameters(), method.centroids)
    assert all(parameter.grad is None for parameter in rest)


class Odd(nn.Module):
    """Maps, but not as they should be."""

    num_features = 5

    def __init__(self, output_fmt: str = "NCHW") -> None:
        super().__init__()
        self.output_fmt = output_fmt

    def forward_features(self, pictures: Tensor) -> Tensor:
        return torch.zeros(len(pictures), 5, 5, 5)

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        return torch.zeros(len(maps), 5)


@pytest.mark.parametrize(
    ("backbone", "size", "message"),
    [
        ("test_vit", 160, r"oltr needs feature maps \[B, C, H, W\], this backbone gives \(1, 101, 64\)"),
        ("test_vit", 40, "oltr: this backbone takes no images of 40 pixels"),
        (nn.Linear(3, 4), 40, "oltr needs a timm backbone"),
        (Odd(output_fmt="NHWC"), 40, r"oltr needs feature maps \[B, C, H, W\]"),
    ],
)
def test_backbones_without_maps_are_refused(backbone: Any, size: int, message: str) -> None:
    if isinstance(backbone, nn.Linear):
        backbone.num_features = 4
    with pytest.raises(UserError, match=message) as caught:
        method_on(backbone, size)
    assert "\n" not in str(caught.value) and str(caught.value).endswith("--backbone such as resnet18")


def second_stage(method: Method, run: FakeRun) -> Any:
    plan = method.stages(run)
    next(plan)
    return plan.send(StageResult("train", False, ()))


def test_the_second_stage_starts_from_the_first() -> None:
    method = method_on()
    run = fake_run(method)
    before = snapshot(method)
    stage = second_stage(method, run)
    assert changed(before, method) == {"memory", "centroids"}
    assert torch.equal(method.memory.hallucinator.weight, method.head.weight)
    assert torch.equal(method.memory.hallucinator.bias, method.head.bias)
    features = run.features()
    for label in range(4):
        mean = features[label == LABELS].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(method.centroids[label].detach().numpy(), mean, rtol=1e-6, atol=1e-7)
    assert (stage.name, stage.epochs, stage.stop, stage.select) == ("memory", 12, Plateau(5), True)
    assert method.predict(images(len(LABELS))).isfinite().all()  # one class has one image: it is its centroid
    method = method_on()
    stage = second_stage(method, fake_run(method))
    stream = stage.sampler(Pool(LABELS, COUNTS, 16), Progress(0, 1), np.random.default_rng(0))
    assert np.bincount(LABELS[stream]).tolist() == [4, 4, 4, 4]
    assert all(len(set(turn)) == 1 for turn in LABELS[stream].reshape(4, 4).tolist())


def test_the_second_stage_trains_all_but_the_first_head() -> None:
    method = method_on()
    stage = second_stage(method, fake_run(method))
    assert stage.params is None
    groups = method.param_groups(1e-3)
    moved = [id(parameter) for group in groups for parameter in group["params"]]
    linear = {id(parameter) for parameter in method.head.parameters()}
    assert len(moved) == len(set(moved))
    assert set(moved) == {id(parameter) for parameter in method.parameters()} - linear
    assert {group["lr"] for group in groups} == {1e-3}
    (memory,) = [group for group in groups if any(each is method.centroids for each in group["params"])]
    assert len(memory["params"]) == 1 and memory["weight_decay"] == 0
    before = snapshot(method)
    optimizer = torch.optim.Adam(groups)
    batch = Batch((images(8),), torch.from_numpy(LABELS[:8]), np.arange(8))
    method.loss(batch, Progress(0, 1))["loss"].backward()
    optimizer.step()
    assert changed(before, method) == {"backbone", "attention", "fc_add", "memory", "centroids"}
    assert method.attention.mask.weight.abs().sum() > 0


def test_the_loss_and_its_terms() -> None:
    method = method_on(feature_weight=0.5, repel_weight=0.2, repel_margin=50.0)
    second_stage(method, fake_run(method))
    method.eval()
    batch = Batch((images(8),), torch.from_numpy(LABELS[:8]), np.arange(8))
    terms = method.loss(batch, Progress(0, 1))
    features = method.features(batch.images)
    distances = (features.unsqueeze(1) - method.centroids).square().sum(2)
    own = nn.functional.one_hot(batch.targets, 4).bool()
    repulsion = (50 - distances[~own].sum() / 32).clamp_min(0)
    torch.testing.assert_close(terms["centroid"], distances[own].mean() / 2 + 0.2 * repulsion)
    expected = -method.predict(batch.images).log_softmax(1)[own].mean()
    torch.testing.assert_close(terms["classification"], expected)
    torch.testing.assert_close(terms["loss"], terms["classification"] + 0.5 * terms["centroid"])
    method = method_on()
    assert (method.memory.reachability, method.memory.classifier.scale) == (10, 16)
    assert (method.centroid_loss.repel_weight, method.centroid_loss.margin) == (0.01, 10)
    assert method.centroid_loss.own_gradient_rule and method.config.feature_weight == 0.01


def test_logits_are_single_precision_under_autocast() -> None:
    method = method_on()
    second_stage(method, fake_run(method))
    method.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        features, logits = method.features(images(4)), method.predict(images(4))
    assert features.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(logits, method.classify(features))
