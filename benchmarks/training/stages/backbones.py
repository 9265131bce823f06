"""A trial's networks: timm models that take the image size, weights from named streams, every pass counted."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import timm
import torch
from torch import Tensor, nn

from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stages.tuning import adapt
from ltbench.benchmarks.training.stages.weights import LocalWeights, published_name
from ltbench.benchmarks.training.streams import stream_seed
from ltbench.datasets.images.augmentation import INTERPOLATIONS
from ltbench.datasets.images.part import ImagePart
from ltbench.errors import UserError
from ltbench.registry import unknown

if TYPE_CHECKING:
    from ltbench.benchmarks.training.journal import Journal
    from ltbench.benchmarks.training.stage_cache import StageCache


class ForwardCounter:
    """Counts the images that go through encoders, by whatever way: also a second pass, and copies of a network.

    An encoder is a network of `Backbones`, or any other module that a method holds and calls with images. A call
    counts once, however encoders are nested.

    Attributes
    ----------
    images : so far
    """

    def __init__(self) -> None:
        self.images = 0
        self._watched: WeakSet[nn.Module] = WeakSet()
        before: list[int] = []

        def enter(module: nn.Module, *given: Any) -> None:
            before.append(self.images)

        # Functions, which copies of a module share; a copy that is watched in its turn still counts once.
        def leave(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
            unchanged = self.images == before.pop()
            tensor = next((each for each in (*given, *named.values()) if isinstance(each, Tensor)), None)
            if unchanged and tensor is not None:
                self.images += len(tensor)

        def leave_own(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
            images = any(isinstance(each, Tensor) and _are_images(each) for each in (*given, *named.values()))
            leave(module, given if images else (), named if images else {}, result)

        self._enter, self._leave, self._leave_own = enter, leave, leave_own

    def watch(self, network: nn.Module) -> None:
        """Count the passes of a backbone, also where a method calls its parts: its first layer with weights counts."""
        leaves = (module for module in network.modules() if not list(module.children()))
        first = next((module for module in leaves if list(module.parameters(recurse=False))), network)
        for module in dict.fromkeys((network, first)):
            self._hook(module, self._leave)
        self._watched.update(network.modules())

    def watch_all(self, method: nn.Module) -> None:
        """Count the passes of whatever a method holds by now: what it put into a backbone, and encoders of its own."""
        for module in set(method.modules()) - {method, *self._watched}:
            self._watched.add(module)
            if next(module.parameters(), None) is not None:
                self._hook(module, self._leave_own)

    def _hook(self, module: nn.Module, leave: Any) -> None:
        module.register_forward_pre_hook(self._enter)
        module.register_forward_hook(leave, with_kwargs=True, always_call=True)


def _are_images(values: Tensor) -> bool:
    return values.ndim == 4 and values.shape[1] == 3


class Backbones:
    """The networks of one trial: the method's backbone, and further ones for methods of several.

    Parameters
    ----------
    protocol : which network, and its starting weights
    seed : of the trial; the weights of the first network, of the second, and so on are the same for every method

    Attributes
    ----------
    counter : of all passes of all of them
    """

    def __init__(self, protocol: Protocol, seed: int) -> None:
        self.counter = ForwardCounter()
        self._protocol, self._seed, self._made = protocol, seed, 0

    def new(self) -> nn.Module:
        """Return the next network: images [B, 3, H, W] to features; the global random stream stays where it is.

        Raises
        ------
        UserError : starting weights that cannot be had, or that are not those of the plan
        """
        names = ("backbone",) if self._made == 0 else ("backbone", self._made)
        self._made += 1
        with torch.random.fork_rng([]):
            torch.manual_seed(stream_seed(self._seed, "init", *names))
            network = _create(self._protocol)
            adapt(network, self._protocol)
        self.counter.watch(network)
        return network

    def part(self, images: ImagePart, name: str, cache: StageCache, journal: Journal | None = None) -> ImagePart:
        """Return what networks are given of a part of the split: its images.

        Parameters
        ----------
        name : of the part
        cache : of what is computed once for several trials
        journal : that is charged with what has to be computed; None: nobody is, as for scoring test images
        """
        return images


def check_backbone(protocol: Protocol) -> Protocol:
    """Return the protocol with what its starting weights decide; refuse a network that cannot be used.

    They decide normalisation and interpolation; a file of weights is named by its full path, and known by its SHA-256.

    Raises
    ------
    UserError : a network that timm does not know (with the nearest known ones), one that does not take the image size
        or cannot be tuned so, or weights that are not of it
    """
    name, size = protocol.backbone, protocol.image_size
    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
        raise unknown("backbone", name, near or ["resnet18", "resnet50", "and the others that timm lists"])
    protocol = _located(protocol)
    with torch.random.fork_rng([]), torch.no_grad():
        try:
            network = _create(protocol, loaded=False).eval()
            _require_whole_patches(protocol, network)
            adapt(network, protocol)
            network(torch.zeros(1, 3, size, size))
        except UserError:
            raise
        except (AssertionError, RuntimeError, ValueError, TypeError, IndexError, ZeroDivisionError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            advice = "choose another --image-size or --backbone"
            raise UserError(f"backbone {name} takes no images of {size} pixels ({reason}); {advice}") from error
        if protocol.weights == "none":
            return protocol
        _create(protocol)
    return _as_pretrained(protocol, network)


def _located(protocol: Protocol) -> Protocol:
    """Return the protocol with the full path or tag, and the SHA-256, of its weights."""
    weights = protocol.weights
    if weights == "none":
        return protocol
    if protocol.weights_kind == "timm":
        weights = f"timm:{published_name(protocol).partition('.')[2]}"
    elif protocol.weights_kind == "file":
        weights = f"file:{Path(weights.removeprefix('file:')).expanduser().absolute()}"
    located = replace(protocol, weights=weights)
    return replace(located, weights_sha256=LocalWeights.of(located).sha256())


def _as_pretrained(protocol: Protocol, network: Any) -> Protocol:
    """Return the protocol with normalisation and interpolation of a network's weights."""
    published = network.pretrained_cfg
    mean, std = ((float(r), float(g), float(b)) for r, g, b in (published["mean"], published["std"]))
    kind = published["interpolation"]
    usual = {"interpolation": kind} if kind in INTERPOLATIONS else {}
    return replace(protocol, augmentation=replace(protocol.augmentation, mean=mean, std=std, **usual))


def _require_whole_patches(protocol: Protocol, network: nn.Module) -> None:
    """Refuse a size of which a transformer would leave out the border that fills no patch."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    sides = {int(side) for side in (patch if isinstance(patch, tuple | list) else [patch]) if isinstance(side, int)}
    for side in sides:
        below = protocol.image_size // side * side
        if below != protocol.image_size:
            near = " or ".join(str(size) for size in (below, below + side) if size >= side)
            raise UserError(
                f"backbone {protocol.backbone} cuts images into patches of {side} pixels, which do not fill "
                f"{protocol.image_size}; use --image-size {near}"
            )


def size_settings(protocol: Protocol) -> dict[str, Any]:
    """Return the argument by which timm builds a network that is for one size of images alone; else none."""
    published = timm.get_pretrained_cfg(protocol.backbone)
    return {"img_size": protocol.image_size} if published is not None and published.fixed_input_size else {}


def _create(protocol: Protocol, *, loaded: bool = True) -> nn.Module:
    """Return the network of a protocol; `loaded`: with its starting weights."""
    try:
        return _of_weights(protocol, loaded, size_settings(protocol))
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return _of_weights(protocol, loaded, {})


def _of_weights(protocol: Protocol, loaded: bool, settings: dict[str, Any]) -> nn.Module:
    if protocol.weights == "none":
        return timm.create_model(protocol.backbone, num_classes=0, **settings)
    local = LocalWeights.of(protocol)
    if loaded and local.sha256() != protocol.weights_sha256:
        raise UserError(
            f"weights {local.file} have changed since the trial was planned: their SHA-256 is not "
            f"{protocol.weights_sha256[:12]}; bring the file back, or run the command again"
        )
    name = published_name(protocol) if protocol.weights_kind == "timm" else protocol.backbone
    return local.network(name, loaded=loaded, **settings)
