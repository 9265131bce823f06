"""Starting weights of networks: found on this machine or on the hub, and loaded by timm's own code.

timm renames the keys of known foreign layouts, resizes position embeddings and drops classification heads; it reads
tensors alone (`weights_only`). What it loads is compared with what the network has: a file that lacks a tensor is
refused, since that tensor would stay random, and so is one with further blocks or layers in blocks, which is of another
network.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from ltbench.benchmarks.training.protocol import Protocol
from ltbench.errors import UserError, counted
from ltbench.files import file_hash, read_json
from ltbench.registry import unknown

_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")  # timm takes the first of them
_FOREIGN_HEAD = {"num_classes": 1}  # whatever a file says of its classes, its head is dropped
_UNCOUNTED = "num_batches_tracked"  # which old files lack, and evaluation does without
_UNLEARNED = (_UNCOUNTED, "relative_position_index", "attn_mask")
_GIVEN_HERE = {"img_size", "num_classes"}  # arguments of a network that the protocol and the method decide
_SHOWN = 3  # names of tensors in a message
_MISMATCH = re.compile(
    r"size mismatch for (\S+): .*?shape \w*\.?\w*\((.*?)\).*?shape in current model is \w*\.?\w*\((.*?)\)"
)
_ADVICE = "give the weights of this --backbone, or the --backbone of these weights"


@dataclass(frozen=True)
class LocalWeights:
    """Weights that lie on this machine; those of the hub and of timm are in its cache, or are put there.

    Attributes
    ----------
    file : of the weights
    config : what the `config.json` of their folder says; None: a file by itself
    """

    file: Path
    config: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, protocol: Protocol) -> LocalWeights:
        """Return the weights of a protocol, which has some.

        Raises
        ------
        UserError : they cannot be had, or are of another backbone or of a changed one
        """
        kind, _, where = protocol.weights.partition(":")
        if kind == "timm":
            return cls(_published_file(published_name(protocol)))
        path = _hub_folder(where) if kind == "hub" else Path(where).expanduser().absolute()
        if path.is_file():
            return cls(path)
        if not path.is_dir():
            raise UserError(f"--weights {protocol.weights}: there is no such file or folder")
        config, file = path / "config.json", next((path / name for name in _FILES if (path / name).is_file()), None)
        if file is None or not config.is_file():
            raise UserError(
                f"--weights {protocol.weights} needs config.json and one of {', '.join(_FILES)} in the folder"
            )
        described = read_json(config)
        architecture = described.get("architecture") if isinstance(described, dict) else None
        if architecture != protocol.backbone.partition(".")[0]:
            raise UserError(
                f"--weights {protocol.weights} are of {architecture or 'no network of timm'}, "
                f"not of --backbone {protocol.backbone}; {_ADVICE}"
            )
        if own := _changed(architecture, described.get("model_args") or {}):
            raise UserError(
                f"--weights {protocol.weights} are of a {architecture} that its config.json changes "
                f"(model_args: {', '.join(own)}), and ltbench trains the plain backbone; give the weights file itself, "
                "without its config.json, if the plain backbone fits it"
            )
        return cls(file, described)

    def sha256(self) -> str:
        """Return the SHA-256 of the file, hex."""
        return file_hash(self.file)

    def network(self, backbone: str, *, loaded: bool, **settings: Any) -> nn.Module:
        """Return the network that they are of.

        Parameters
        ----------
        loaded : with the weights; else at random ones
        settings : of `timm.create_model`

        Raises
        ------
        UserError : a tensor is missing or of another size, or the file is none of weights
        """
        name = backbone if self.config is None else f"local-dir:{self.file.parent}"
        if not loaded:
            return timm.create_model(name, num_classes=0, **settings)
        if self.config is not None:
            return self._loaded(name, backbone, None, settings, _Lacking())
        with torch.device("meta"):
            wanted = timm.create_model(name, num_classes=0, **settings).state_dict()
        with _quiet(), self._named(backbone):
            held = timm.models.load_state_dict(str(self.file), weights_only=True)
            prefix = _prefix(set(wanted), set(held))
        if not prefix:
            return self._loaded(name, backbone, self.file, settings, _Lacking(wanted, held))
        with tempfile.TemporaryDirectory() as folder:
            stripped, own = Path(folder) / "model.safetensors", _without_prefix(held, prefix)
            save_file(own, stripped)
            return self._loaded(name, backbone, stripped, settings, _Lacking(wanted, own))

    def _loaded(
        self, name: str, backbone: str, file: Path | None, settings: Mapping[str, Any], lacking: _Lacking
    ) -> nn.Module:
        """Return timm's network of a name with the weights of a file, or of the folder that the name gives."""
        source = {} if file is None else {"file": str(file), "custom_load": False}
        overlay = {**_FOREIGN_HEAD, **source}
        with _quiet(), _noting(lacking), self._named(backbone, lacking):
            network = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **settings
            )
        state = network.state_dict()
        if lacking.missing:
            raise self._misfit(backbone, lacking.described(len(state)))
        if further := lacking.further(state):
            left = f"{counted(len(further), 'tensor')} of the file left over in blocks ({_first(further)})"
            raise self._misfit(backbone, left)
        return network

    @contextmanager
    def _named(self, backbone: str, lacking: _Lacking | None = None) -> Iterator[None]:
        """Turn whatever a file breaks into one line: it may be of any content."""
        try:
            yield
        except Exception as error:
            raise self._misfit(backbone, _wrong(error, lacking)) from error

    def _misfit(self, backbone: str, reason: str) -> UserError:
        return UserError(f"weights {self.file} do not fit the backbone {backbone}: {reason}; {_ADVICE}")


def published_name(protocol: Protocol) -> str:
    """Return timm's name of a protocol's backbone with the weights `timm` or `timm:TAG`, tag and all.

    Raises
    ------
    UserError : no such weights
    """
    model, _, own = protocol.backbone.partition(".")
    tag = protocol.weights.partition(":")[2] or own
    names = timm.list_models(f"{model}.*", pretrained=True)
    tags = [name.partition(".")[2] for name in names]
    if own and tag != own:
        raise UserError(
            f"--weights {protocol.weights} and --backbone {protocol.backbone} name two weights; leave one out"
        )
    if not tags:
        raise UserError(f"timm publishes no weights of {model}; use --weights file:PATH, or another --backbone")
    if tag and tag not in tags:
        raise unknown(f"weights of {model}", f"timm:{tag}", [f"timm:{each}" for each in tags])
    default: Any = timm.get_pretrained_cfg(model)
    return f"{model}.{tag or default.tag}"


class _Lacking:
    """What a file of weights and a network do not share: as torch notes it while it loads, or else by names and sizes.

    Parameters
    ----------
    wanted, held : tensors of the network and of the file, by name, where the file is at hand
    """

    def __init__(self, wanted: Mapping[str, Any] | None = None, held: Mapping[str, Any] | None = None) -> None:
        self._keys: Any = None
        self._wanted, self._held = wanted or {}, held or {}

    def note(self, module: nn.Module, keys: Any) -> None:
        """Take the lists of a load in progress."""
        self._keys = keys

    @property
    def missing(self) -> list[str]:
        """Names of the network's tensors that the file lacks."""
        names = [] if self._keys is None else self._keys.missing_keys
        return [name for name in names if not name.endswith(_UNCOUNTED)]

    @property
    def unused(self) -> list[str]:
        """Names of the file's tensors that the network has no place for."""
        return [] if self._keys is None else self._keys.unexpected_keys

    def further(self, wanted: Iterable[str]) -> list[str]:
        """Return which of the unused names are of numbered blocks, as a network with the names `wanted` has them.

        They are of further blocks, or of layers that its blocks lack, such as adapters; heads and decoders beside the
        blocks are not among them, nor are tables that no network learns.
        """
        numbered = {parent for name in wanted for parent, _ in _numbers(name)}
        learned = (name for name in self.unused if not name.endswith(_UNLEARNED))
        return [name for name in learned if any(parent in numbered for parent, _ in _numbers(name))]

    def compared(self) -> str:
        """Return which tensors the file lacks by name, and which are of another size, in one line; empty if none."""
        absent = [name for name in self._wanted if name not in self._held and not name.endswith(_UNCOUNTED)]
        shared = [name for name in self._wanted if isinstance(self._held.get(name), Tensor)]
        sizes = [(name, list(self._held[name].shape), list(self._wanted[name].shape)) for name in shared]
        differing = [_sizes(*each) for each in sizes if each[1] != each[2]]
        said = [f"{len(absent)} of {len(self._wanted)} tensors are missing ({_first(absent)})"] if absent else []
        said += [f"{counted(len(differing), 'size')} differ, first {differing[0]}"] if differing else []
        return ", ".join(said)

    def described(self, tensors: int) -> str:
        """Return what is missing and left over, in one line; `tensors` is the number of those of the network."""
        said = f"{len(self.missing)} of {tensors} tensors are missing ({_first(self.missing)})"
        if not self.unused:
            return said
        return f"{said}, {counted(len(self.unused), 'tensor')} of the file left over ({_first(self.unused)})"


@contextmanager
def _noting(lacking: _Lacking) -> Iterator[None]:
    """Note what is missing when weights are loaded into a module that is built inside."""
    handles = list[Any]()

    def watch(parent: nn.Module, name: str, child: nn.Module | None) -> None:
        handles.append(parent.register_load_state_dict_post_hook(lacking.note))

    handles.append(register_module_module_registration_hook(watch))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _changed(architecture: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return the names of arguments by which a network differs from the plain one, except those decided here."""
    with torch.device("meta"):
        plain: Any = timm.create_model(architecture, num_classes=0)
    pools = [getattr(part, "global_pool", None) for part in (plain, getattr(plain, "head", None))]
    usual = {"in_chans": [3], "global_pool": [getattr(pool, "pool_type", pool) for pool in pools if pool is not None]}
    return sorted(
        name for name, value in arguments.items() if name not in _GIVEN_HERE and value not in usual.get(name, ())
    )


def _hub_folder(name: str) -> Path:
    """Return the folder of a model `ID` or `ID@REVISION` of the hub."""
    repository, _, revision = name.partition("@")
    with _had(f"hub:{name}", "download it where there is a network, and give the folder as --weights file:FOLDER"):
        folder = _hub_file(repository, ("config.json",), revision).parent
        _hub_file(repository, _FILES, folder.name)  # of the same revision
        return folder


def _published_file(name: str) -> Path:
    """Return the file of weights that timm publishes under a name with a tag."""
    published: Any = timm.get_pretrained_cfg(name)
    tag = name.partition(".")[2]
    with _had(f"timm:{tag}", "load them once where there is a network, or give --weights file:PATH"):
        if published.hf_hub_id:
            return _hub_file(published.hf_hub_id, (published.hf_hub_filename or _FILES[0], *_FILES[1:]), "")
        file = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(published.url).name  # as torch.hub has it
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(published.url, str(file))
        return file


def _hub_file(repository: str, names: Sequence[str], revision: str) -> Path:
    """Return the first of some files that a repository of the hub has; from the cache where it is there."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    unreachable: Exception | None = None
    for name in names:
        for cached in (True, False):
            if unreachable is not None and not cached:
                continue
            try:
                return Path(hf_hub_download(repository, name, revision=revision or None, local_files_only=cached))
            except LocalEntryNotFoundError as error:
                unreachable = unreachable if cached else error
            except EntryNotFoundError:
                continue
    raise unreachable or FileNotFoundError(f"{repository} has none of {', '.join(names)}")


@contextmanager
def _had(weights: str, advice: str) -> Iterator[None]:
    """Turn whatever goes wrong at a download into one line: no network, no such model, no right to it."""
    try:
        with _quiet("huggingface_hub"):
            yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"--weights {weights} cannot be had ({reason}); {advice}") from error


@contextmanager
def _quiet(library: str = "timm") -> Iterator[None]:
    """Leave out what a library logs, timm of keys and the hub's of retries, which is told in one line here."""
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _prefix(wanted: Set[str], held: Set[str]) -> str:
    """Return the text that stands in a file before the names of most of a network's tensors; empty if there is none.

    Raises
    ------
    ValueError : several such texts, each of a network
    """
    if wanted & held:
        return ""
    ends = sorted(wanted)[0]
    before = {name.removesuffix(ends) for name in held if name.endswith(f".{ends}")}
    found = sorted(text for text in before if 2 * sum(text + name in held for name in wanted) > len(wanted))
    if len(found) > 1:
        raise ValueError(f"it holds several networks ({', '.join(found)}); save one of them by itself")
    return found[0] if found else ""


def _without_prefix(held: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    named = {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
    return {name: value.clone().contiguous() for name, value in named.items() if isinstance(value, Tensor)}


def _wrong(error: Exception, lacking: _Lacking | None) -> str:
    """Return in one line why weights could not be loaded."""
    text = " ".join(str(error).split())
    if "weights_only" in text:
        return "it is no file of tensors, or one with Python objects beside, which are not loaded; save its state_dict"
    if isinstance(error, SafetensorError):
        return f"it is no whole file of safetensors ({text})"
    if lacking is None:
        return "it holds no tensors by name" if isinstance(error, AttributeError) else text or type(error).__name__
    if sizes := _MISMATCH.findall(text):
        said = f"{counted(len(sizes), 'size')} differ, first {_sizes(*sizes[0])}"
        return f"{len(lacking.missing)} missing ({_first(lacking.missing)}), {said}" if lacking.missing else said
    if compared := lacking.compared():
        return compared
    return f"{type(error).__name__}: {text}"


def _sizes(name: str, found: Any, wanted: Any) -> str:
    return f"{name} {found} in the file, {wanted} in the network"


def _numbers(name: str) -> list[tuple[str, str]]:
    """Return the numbers in a name, each with the path before it."""
    parts = name.split(".")
    return [(".".join(parts[:place]), part) for place, part in enumerate(parts) if part.isdigit()]


def _first(names: list[str]) -> str:
    return f"first {', '.join(names[:_SHOWN])}"
