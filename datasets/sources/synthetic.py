"""Synthetic: 8 procedurally drawn classes of dermoscopy-like skin lesions, embedded and deterministic.

Source: drawn on demand, nothing to download.
Size: 8 classes, images drawn on demand.
Licence: MIT.

An image is a pure function of (`_SEED`, class id, image index, size): numpy Generators give every parameter, and
the drawing is a smooth function on [-1, 1]^2 that `size` only samples, so a lesion is the same at every size.
The classes differ in contour, pigment and texture (`Look`). Pose, size, darkness, skin, hair, light and
optics (`_pose`, `_photograph`) come from a stream of their own with one distribution for all classes.
How hard a class is (`Difficulty`: subtypes, spread, overlap with its neighbours) is independent of how frequent it
is; `difficulty` chooses which end of the ranking is hard. The looks are inventions, not diagnoses.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ltbench.datasets import register
from ltbench.datasets.base import Source
from ltbench.options import option

_SEED = 20190813
_VERSION = 1  # raise when any pixel changes: stores and results are keyed by it
_SUPPLY = 2150  # images a class: 2000 to train on, 50 and 100 for validation and test

_MELANIN = np.array([0.70, 1.0, 1.22])[:, None, None]  # absorption in R, G, B
_BLOOD = np.array([0.28, 1.25, 1.05])[:, None, None]
_WHITE = np.array([0.93, 0.87, 0.82])[:, None, None]
_VEIL = np.array([0.42, 0.45, 0.53])[:, None, None]
_LIGHT_SKIN = np.array([0.92, 0.75, 0.67])
_TAN_SKIN = np.array([0.76, 0.55, 0.43])


@dataclass(frozen=True)
class Look:
    """Strength in [0, 1] of each visible trait of a lesion."""

    oblong: float = 0.15  # contour
    lobed: float = 0.15
    ragged: float = 0.1
    soft: float = 0.4
    streaks: float = 0.0
    blood: float = 0.2  # pigment: share of blood against melanin
    patches: float = 0.25
    veil: float = 0.0
    hollow: float = 0.0
    network: float = 0.0  # texture
    globules: float = 0.0
    milia: float = 0.0
    scale: float = 0.0
    lacunae: float = 0.0
    vessels: float = 0.0


@dataclass(frozen=True)
class Difficulty:
    """How diverse a class is: number of subtypes, spread of traits, chance and strength of borrowed ones."""

    subtypes: int
    spread: float
    overlap: float
    borrowed: float


_EASY = Difficulty(subtypes=1, spread=0.09, overlap=0.0, borrowed=0.0)
_MEDIUM = Difficulty(subtypes=2, spread=0.12, overlap=0.3, borrowed=0.6)
_HARD = Difficulty(subtypes=3, spread=0.16, overlap=0.5, borrowed=0.8)
DIFFICULTIES: dict[str, tuple[Difficulty, ...]] = {
    "frequent-hard": (_HARD,) * 3 + (_MEDIUM,) * 2 + (_EASY,) * 3,
    "rare-hard": (_EASY,) * 3 + (_MEDIUM,) * 2 + (_HARD,) * 3,
    "equal": (_MEDIUM,) * 8,
}


def _subtypes(base: Look, second: dict[str, float], third: dict[str, float]) -> tuple[Look, ...]:
    return base, replace(base, **second), replace(base, **third)


# In order of class id; neighbours in this ring share traits. The first subtype is the archetype.
_CLASSES: dict[str, tuple[Look, ...]] = {
    "reticular": _subtypes(
        Look(network=0.85, soft=0.75),
        {"hollow": 0.5, "patches": 0.6, "soft": 0.5},
        {"globules": 0.5, "network": 0.5, "oblong": 0.6},
    ),
    "ragged mosaic": _subtypes(
        Look(ragged=0.8, lobed=0.6, patches=0.9, soft=0.1, network=0.2, veil=0.3),
        {"veil": 0.9, "network": 0.0, "streaks": 0.4},
        {"network": 0.7, "ragged": 0.5, "patches": 0.6, "blood": 0.4},
    ),
    "frosted plaque": _subtypes(
        Look(scale=0.85, soft=0.15, lobed=0.4, patches=0.4, milia=0.2),
        {"scale": 0.45, "milia": 0.85},
        {"scale": 0.5, "blood": 0.6, "soft": 0.6, "ragged": 0.5},
    ),
    "branching pink": _subtypes(
        Look(vessels=0.9, blood=0.55, soft=0.6, patches=0.3),
        {"veil": 0.6, "vessels": 0.6},
        {"scale": 0.5, "vessels": 0.6, "lobed": 0.5},
    ),
    "cobbled": _subtypes(
        Look(globules=0.9, soft=0.3),
        {"globules": 0.6, "milia": 0.5, "lobed": 0.5},
        {"globules": 0.6, "hollow": 0.6, "blood": 0.5},
    ),
    "red lagoons": _subtypes(
        Look(lacunae=0.75, blood=0.5, soft=0.15, lobed=0.45),
        {"veil": 0.6, "lacunae": 0.7},
        {"scale": 0.4, "lacunae": 0.6, "globules": 0.4},
    ),
    "starburst": _subtypes(
        Look(streaks=0.85, soft=0.1, lobed=0.0, oblong=0.05),
        {"globules": 0.5, "streaks": 0.7},
        {"network": 0.5, "veil": 0.5, "streaks": 0.6},
    ),
    "pale-centred": _subtypes(
        Look(hollow=0.85, network=0.3, soft=0.6),
        {"network": 0.7, "hollow": 0.7},
        {"vessels": 0.5, "blood": 0.5, "hollow": 0.7},
    ),
}
_LOOKS = np.array([[astuple(look) for look in looks] for looks in _CLASSES.values()])  # [8, 3, traits]
_TRAITS = [field.name for field in fields(Look)]


@register("synthetic")
class Synthetic(Source):
    """The embedded dataset: 8 classes with the same supply of images each, so class 0 becomes the head.

    Parameters
    ----------
    root : ignored, nothing is read from disk
    options : see `Options`
    """

    title = "synthetic (8 procedurally drawn lesion classes)"
    licence = "MIT"
    citation = "ltbench"
    preset = "quick"
    default_n_max = 800
    needs_folder = False
    revision = _VERSION

    @dataclass(frozen=True)
    class Options:
        """What is drawn."""

        difficulty: Literal["frequent-hard", "rare-hard", "equal"] = option(
            "frequent-hard", help="which classes are hard"
        )

    def __init__(self, root: Path | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        self.difficulty: str = self.options.difficulty
        if self.options != self.Options():
            self.variant = self.difficulty
            self.title = f"{type(self).title}, {self.difficulty}"
        self.class_names = tuple(_CLASSES)
        count = len(_CLASSES)
        self.labels = np.repeat(np.arange(count, dtype=np.int64), _SUPPLY)
        self.ids = np.array([f"syn_{class_id}_{index:05d}" for class_id in range(count) for index in range(_SUPPLY)])
        self.lesions = self.ids
        self.present = np.ones(len(self.ids), dtype=bool)

    def read(self, position: int, size: int) -> np.ndarray:
        """Draw image `position` at `size` x `size`: uint8 [3, size, size], RGB, planar."""
        class_id, index = divmod(int(position), _SUPPLY)
        rng = np.random.default_rng([_SEED, 0, class_id, index])
        scene = np.random.default_rng([_SEED, 1, class_id, index])
        look = sample_look(class_id, DIFFICULTIES[self.difficulty][class_id], rng)
        return _photograph(look, size, rng, scene)

    def fingerprints(self, positions: np.ndarray) -> np.ndarray:
        """Return int64 [n]: the drawing's version; another difficulty is another `variant`."""
        return np.full(len(positions), _VERSION, dtype=np.int64)


def sample_look(class_id: int, difficulty: Difficulty, rng: np.random.Generator) -> Look:
    """Return the traits of one lesion of a class that is as diverse as `difficulty` says."""
    traits = _LOOKS[class_id, rng.integers(difficulty.subtypes)]
    neighbour = _LOOKS[(class_id + 2 * rng.integers(2) - 1) % len(_LOOKS), 0]
    borrows = rng.random() < difficulty.overlap
    weight = borrows * difficulty.borrowed * rng.random()
    traits = (1 - weight) * traits + weight * neighbour + difficulty.spread * rng.normal(size=len(_TRAITS))
    return Look(*np.clip(traits, 0, 1).tolist())


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x [1, size] and y [size, 1] of the pixel centres in [-1, 1]."""
    axis = (np.arange(size) + 0.5) * (2 / size) - 1
    return axis[None, :], axis[:, None]


@lru_cache(maxsize=32)
def _spline(size: int, cells: int) -> np.ndarray:
    """Return the cubic B-spline basis [size, cells + 3] of `cells` lattice cells along an axis."""
    knots = np.arange(-1, cells + 2)
    distance = np.abs((_grid(size)[0].T + 1) * (cells / 2) - knots)
    near = 2 / 3 - distance**2 + distance**3 / 2
    return np.where(distance < 1, near, np.clip(2 - distance, 0, None) ** 3 / 6)


def _noise(rng: np.random.Generator, size: int, cells: int, count: int) -> np.ndarray:
    """Return `count` smooth random fields of unit variance or so, [count, size, size]."""
    basis = _spline(size, cells)
    return 2.0 * basis @ rng.normal(size=(count, cells + 3, cells + 3)) @ basis.T


def _step(value: np.ndarray, width: float) -> np.ndarray:
    """Return a soft step from 0 to 1 about zero, `width` wide."""
    return np.clip(value / width + 0.5, 0, 1)


def _dots(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, cell: float, fill: float) -> np.ndarray:
    """Return round dots on a jittered lattice, a `fill` share of the cells taken; in [0, 1]."""
    radius, du, dv, taken = rng.random((4, 16, 16))
    v = v / cell + 100
    j = v.astype(np.intp)
    u = u / cell + 100 + 0.5 * (j & 1)  # bricks look less like a grid than squares
    i = u.astype(np.intp)
    key = (i & 15) * 16 + (j & 15)
    radius = np.where(taken < fill, 0.16 + 0.16 * radius, -1.0).take(key)
    du = u - i - (0.32 + 0.36 * du).take(key)
    dv = v - j - (0.32 + 0.36 * dv).take(key)
    return _step(radius - np.sqrt(du * du + dv * dv), 0.16)


def _pose(size: int, scene: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the lesion's own coordinates (its radius is 1) at every pixel: two arrays [size, size]."""
    x, y = _grid(size)
    centre_x, centre_y = scene.uniform(-0.25, 0.25, size=2)
    angle = scene.uniform(0, 2 * np.pi)
    radius = scene.uniform(0.4, 0.72)
    cos, sin = np.cos(angle) / radius, np.sin(angle) / radius
    u = cos * (x - centre_x) + sin * (y - centre_y)
    v = cos * (y - centre_y) - sin * (x - centre_x)
    return u, v


def _outline(look: Look, rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the height inside the contour (1 at the centre, 0 on it) and the polar angle, both [size, size]."""
    stretch = 1 + 0.7 * look.oblong
    u, v = u / np.sqrt(stretch), v * np.sqrt(stretch)
    rho, angle = np.sqrt(u * u + v * v) + 1e-9, np.arctan2(v, u)
    harmonics = np.arange(2, 11)
    strength = np.where(harmonics < 5, 0.14 * look.lobed, 0.045 * look.ragged)
    waves = strength * (rng.normal(size=9) + 1j * rng.normal(size=9))
    unit = (u + 1j * v) / rho
    radius = np.zeros_like(unit)
    for wave in waves[::-1]:  # Horner: sum of wave_k unit^k costs no cosine per harmonic
        radius = (radius + wave) * unit
    radius = 1 + (radius * unit).real
    area = 1 + 0.5 * np.sum(np.abs(waves) ** 2)  # divided out: size must not tell the class
    return 1 - rho * np.sqrt(area) / np.clip(radius, 0.35, None), angle


def _rays(rng: np.random.Generator, angle: np.ndarray, wobble: np.ndarray) -> np.ndarray:
    """Return radial fingers about the centre, in [0, 1]."""
    number = rng.integers(14, 22)
    return 0.5 + 0.5 * np.cos(number * angle + 2.0 * wobble + rng.uniform(0, 6.3))


def _honeycomb(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the lines of a pigment network, in [0, 1]."""
    wave = 2 * np.pi / rng.uniform(0.27, 0.38)
    shift_u, shift_v = rng.uniform(0, 9, size=2)
    u, v = wave * (u + shift_u), wave * (v + shift_v)
    holes = np.cos(u) + 2 * np.cos(0.5 * u) * np.cos(np.sqrt(0.75) * v)  # three plane waves at 120 degrees
    return _step(-holes, 1.6)


def _lesion(
    look: Look, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, *, darkness: float, flush: float
) -> tuple[np.ndarray, ...]:
    """Return absorption [3, size, size] and the coverages of white, veil and bright dots [size, size]."""
    size = len(u)
    bend_u, bend_v, patches, tint, cloud, wobble, branch, twig = _noise(rng, size, 6, 8)
    u, v = u + 0.07 * bend_u, v + 0.07 * bend_v
    inside, angle = _outline(look, rng, u, v)
    rays = _rays(rng, angle, wobble)
    rim = look.streaks * _step(0.3 - np.abs(inside), 0.3) * np.clip(0.9 + 0.3 * branch, 0.3, 1)
    inside = inside + 0.33 * rim * (rays - 0.65) + (0.03 + 0.16 * look.ragged) * _noise(rng, size, 13, 1)[0]
    mask = _step(inside, 0.12 + 0.6 * look.soft)

    melanin = np.clip(1 + 0.7 * look.patches * patches, 0.15, None) * (0.8 + 0.4 * inside)
    melanin *= 1 - 0.9 * look.hollow * _step(inside - 0.42 + 0.08 * cloud, 0.4)
    melanin *= 1 + 1.3 * look.network * (_honeycomb(rng, u, v) - 0.45) * np.clip(0.9 + 0.35 * wobble, 0.2, 1.2)
    melanin += 1.8 * look.globules * (_dots(rng, u, v, 0.33, 0.85) - 0.3) + 0.9 * rim * (rays - 0.4)
    blood = look.blood * (1 + 0.4 * tint) + 1.6 * look.lacunae * _dots(rng, u + 7, v, 0.52, 0.8)
    ridges = np.maximum(_step(0.09 - np.abs(branch), 0.12), 0.7 * _step(0.08 - np.abs(twig), 0.12))
    blood = np.clip(blood, 0, None) + 1.3 * look.vessels * ridges
    melanin = np.clip(melanin, 0.05, None) * (1 - 0.75 * look.blood) * (1 - 0.5 * look.lacunae)

    absorbed = mask * (_MELANIN * melanin + flush * _BLOOD * blood)
    absorbed *= darkness * mask.sum() / absorbed.mean(0).sum()  # mean darkness must not tell the class
    white = 0.75 * look.scale * mask * _step(cloud, 1.0)
    veil = 0.7 * look.veil * mask * _step(tint - 0.1, 2.0)
    bright = 0.85 * look.milia * mask * _dots(rng, u + 3, v + 5, 0.26, 0.45)
    return absorbed, white, veil, bright


def _hair(scene: np.random.Generator, size: int) -> np.ndarray:
    """Return how much light the hairs take at every pixel, [size, size] in [0, 1]."""
    x, y = _grid(size)
    number = int(13 * scene.random() ** 2.5)
    angle, shift, bow, width = scene.random((4, 12, 1, 1))[:, :number]
    cos, sin = np.cos(6.3 * angle), np.sin(6.3 * angle)
    along, across = cos * x + sin * y, cos * y - sin * x
    distance = np.abs(across + (0.9 * bow - 0.45) * along**2 + 2.4 * shift - 1.2)
    half_width, pixel = 0.005 + 0.01 * width, 2 / size
    cover = np.clip((half_width - distance) / pixel + 0.5, 0, 1) * np.minimum(1, 2 * half_width / pixel)
    return 1 - np.prod(1 - 0.85 * cover, axis=0)


def _photograph(look: Look, size: int, rng: np.random.Generator, scene: np.random.Generator) -> np.ndarray:
    """Return the lesion on skin, under hair, light and optics that no class owns: uint8 [3, size, size]."""
    x, y = _grid(size)
    u, v = _pose(size, scene)
    absorbed, white, veil, bright = _lesion(
        look, rng, u, v, darkness=scene.uniform(0.4, 1.1), flush=scene.lognormal(0, 0.4)
    )
    tone = scene.random()
    skin = ((1 - tone) * _LIGHT_SKIN + tone * _TAN_SKIN) * scene.uniform(0.92, 1.08, size=3)
    mottle = 0.025 * _noise(scene, size, 24, 1) + 0.035 * _noise(scene, size, 5, 1)
    absorbed += np.array([0.6, 1, 1])[:, None, None] * mottle
    image = skin[:, None, None] * np.exp(-absorbed)
    image += white * (_WHITE - image)
    image += veil * (_VEIL - image)
    image += bright * (_WHITE - image)
    image *= 1 - _hair(scene, size) * np.array([0.72, 0.8, 0.84])[:, None, None]
    tilt_x, tilt_y = scene.uniform(-0.14, 0.14, size=2)
    vignette = scene.uniform(0, 0.45) * np.clip(x**2 + y**2 - 0.6, 0, None)
    aperture = scene.uniform(1.1, 2.5)  # below sqrt(2) the corners are black, as in a dermatoscope
    image *= _step(aperture - np.hypot(x, y), 0.06)
    image *= scene.uniform(0.85, 1.1) * (1 + tilt_x * x + tilt_y * y) * np.clip(1 - vignette, 0, 1)
    axis = x - y
    blur = np.exp(-0.5 * (axis / scene.uniform(0.008, 0.03)) ** 2)
    blur /= blur.sum(1, keepdims=True)
    image = blur @ image @ blur.T + 0.014 * _noise(scene, size, 40, 1)
    return np.clip(255 * image + 0.5, 0, 255).astype(np.uint8)
