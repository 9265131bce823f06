"""What of a network is trained: all of it, nothing, some of its own parameters, or adapters that are added to it.

Whatever is added leaves the network as it was, to the bit, until it is trained. What is frozen takes no gradients,
stays in eval mode, and is left out of checkpoints: the network begins with it again.
Source: LoRA, Hu et al., ICLR 2022 (arXiv:2106.09685); AdaptFormer, Chen et al., NeurIPS 2022 (arXiv:2205.13535).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from timm.layers import (
    RmsNorm,
    RmsNorm2d,
    RmsNorm2dFp32,
    RmsNormFp32,
    SimpleNorm,
    SimpleNorm2d,
    SimpleNorm2dFp32,
    SimpleNormFp32,
)
from timm.models import ConvNeXt, Eva, ResNet, VisionTransformer, beit, convnext, eva, vision_transformer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from ltbench.benchmarks.training.protocol import Protocol
from ltbench.errors import UserError

_FROZEN = "frozen_tensors"
_RMS_NORMS = (RmsNorm, RmsNormFp32, RmsNorm2d, RmsNorm2dFp32)
_SIMPLE_NORMS = (SimpleNorm, SimpleNormFp32, SimpleNorm2d, SimpleNorm2dFp32)
_NORMS = (nn.LayerNorm, nn.GroupNorm, _BatchNorm, nn.RMSNorm, *_RMS_NORMS, *_SIMPLE_NORMS)
_VIT_BLOCKS = (vision_transformer.Block, eva.EvaBlock, beit.Block)  # alike in what adapters are attached to
_SLOPE = math.sqrt(5)


class Adapter(nn.Module):
    """A bottleneck beside the MLP of a block: s Up(relu(Down(LN(x)))), x what the MLP's norm gets; 0 at the start.

    Parameters
    ----------
    width : D, channels of the block
    rank : of the bottleneck
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.norm, self.down, self.up = nn.LayerNorm(width), nn.Linear(width, rank), nn.Linear(rank, width)
        self.scale = nn.Parameter(torch.ones(1))
        nn.init.kaiming_normal_(self.down.weight, a=_SLOPE)
        for zeros in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zeros)
        self._changes: list[Tensor] = []

    def forward(self, given: Tensor) -> Tensor:
        """Return what is added to the block: [..., D] to [..., D]."""
        return self.scale * self.up(self.down(self.norm(given)).relu())

    def attach(self, norm: nn.Module, last: nn.Module) -> None:
        """Add it to what a block's last module returns; hooks that are methods go along where a network is copied."""
        norm.register_forward_pre_hook(self._take)
        last.register_forward_hook(self._add)

    def _take(self, norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._changes.append(self(given[0]))

    def _add(self, last: nn.Module, given: Any, returned: Tensor) -> Tensor:
        return returned + self._changes.pop()


class MapAdapter(Adapter):
    """The same for blocks of ConvNeXt, which return maps [B, D, H, W].

    Parameters
    ----------
    convolutional : whether the block's norm gets such maps, too, not [B, H, W, D]
    """

    def __init__(self, width: int, rank: int, *, convolutional: bool) -> None:
        super().__init__(width, rank)
        self._convolutional = convolutional

    def forward(self, given: Tensor) -> Tensor:
        """Return what is added to the block: a map [B, D, H, W]."""
        last = given.permute(0, 2, 3, 1) if self._convolutional else given
        return super().forward(last).permute(0, 3, 1, 2)


class LowRank(nn.Module):
    """Changes of low rank of the queries' and values' rows of a weight [3 D, D]: (x A) B / r; 0 at the start.

    Parameters
    ----------
    outputs, inputs : of the queries alone
    rank : r
    """

    def __init__(self, outputs: int, inputs: int, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.down = nn.ParameterList(torch.empty(rank, inputs) for _ in range(2))
        self.up = nn.ParameterList(torch.zeros(outputs, rank) for _ in range(2))
        for down in self.down:
            nn.init.kaiming_uniform_(down, a=_SLOPE)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight."""
        queries, values = (up @ down / self.rank for up, down in zip(self.up, self.down, strict=True))
        return weight + torch.cat([queries, torch.zeros_like(queries), values])


def adapt(network: nn.Module, protocol: Protocol) -> None:
    """Freeze what the protocol does not tune of a network with its starting weights, and add its adapters.

    Raises
    ------
    UserError : a network that cannot be tuned so
    """
    if protocol.tune == "full":
        return
    network.requires_grad_(False)
    for parameter in _tuned(network, protocol):
        parameter.requires_grad_(True)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    if not trained and protocol.tune != "head":
        raise _unfit(protocol, "a network whose blocks have such parameters")
    setattr(network, _FROZEN, frozenset(network.state_dict().keys() - trained))


def frozen_tensors(network: nn.Module) -> frozenset[str]:
    """Return the names of a network's tensors that stay as they are."""
    return getattr(network, _FROZEN, frozenset())


def keep_frozen(owner: nn.Module) -> None:
    """Put adapted networks inside a module into eval mode, copies of them too: what is trained of them has no mode."""
    for module in owner.modules():
        if frozen_tensors(module):
            module.eval()


def _tuned(network: nn.Module, protocol: Protocol) -> Iterator[nn.Parameter]:
    """Yield the parameters that are trained; adapters are added on the way."""
    if protocol.tune == "head":
        return
    blocks = _blocks(network, protocol)
    for block in blocks:
        if protocol.tune == "bias":
            yield from (own for name, own in block.named_parameters() if name.endswith("bias"))
        elif protocol.tune == "norm":
            norms = (module for module in block.modules() if isinstance(module, _NORMS))
            yield from chain.from_iterable(norm.parameters() for norm in norms)
        elif protocol.tune == "lora":
            yield from _low_rank(block, protocol)
        else:
            yield from _adapter(block, protocol)


def _blocks(network: nn.Module, protocol: Protocol) -> list[Any]:
    """Return the residual blocks of a network."""
    parts: Any = network
    if isinstance(network, VisionTransformer | Eva | beit.Beit):
        return list(parts.blocks)
    if isinstance(network, ConvNeXt):
        return [block for stage in parts.stages for block in stage.blocks]
    if isinstance(network, ResNet):
        return [*parts.layer1, *parts.layer2, *parts.layer3, *parts.layer4]
    raise _unfit(protocol, "a ViT, ConvNeXt or ResNet")


def _low_rank(block: Any, protocol: Protocol) -> Iterator[nn.Parameter]:
    qkv = getattr(getattr(block, "attn", None), "qkv", None)
    if not isinstance(qkv, nn.Linear) or not isinstance(block, _VIT_BLOCKS):
        raise _unfit(protocol, "a ViT whose queries, keys and values are one layer")
    change = LowRank(qkv.out_features // 3, qkv.in_features, protocol.tune_rank)
    parametrize.register_parametrization(qkv, "weight", change)
    yield from change.parameters()


def _adapter(block: Any, protocol: Protocol) -> Iterator[nn.Parameter]:
    adapter: Adapter
    norm: Any
    if isinstance(block, _VIT_BLOCKS):
        norm, last = block.norm2, block.drop_path2
        adapter = Adapter(norm.weight.numel(), protocol.tune_rank)
    elif isinstance(block, convnext.ConvNeXtBlock):
        norm, last = block.norm, block.drop_path
        adapter = MapAdapter(norm.weight.numel(), protocol.tune_rank, convolutional=block.use_conv_mlp)
    else:
        raise _unfit(protocol, "a ViT or ConvNeXt")
    block.adapter = adapter
    adapter.attach(norm, last)
    yield from adapter.parameters()


def _unfit(protocol: Protocol, wanted: str) -> UserError:
    return UserError(
        f"--tune {protocol.tune} needs {wanted}, not {protocol.backbone}; "
        "use another --backbone, or --tune full or head"
    )
