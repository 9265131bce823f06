"""What records say of starting weights: where they are from, and what they were trained on as far as it is known.

Weights that were trained on a benchmark's test images make every row that starts from them too good. What is known is
told by the words of timm's tags and of model names, the first of `_KNOWN` that fits: dermatology models were trained on
public sets such as ISIC, and web-scale collections hold what is public; ImageNet has no medical images. That weights
have not seen test images is taken from timm alone: the names of files and folders, their tags, which a network that was
trained further keeps, and models of others on the hub can say that they may have, and never that they have not.
"""

from __future__ import annotations

import re

import timm
from timm.models import PretrainedCfg

from ltbench.benchmarks.analysis.records import StartingWeights
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stages.weights import LocalWeights, published_name

_KNOWN = (
    (
        r"panderm|derm|isic|ham10000|monet|medsiglip|biomed|pubmed|medical",
        "medical images, public sets among them",
        True,
    ),
    (
        r"lvd142m|lvd1689m|sat493m|laion|openai|clip|siglip|webli|datacomp|dfn|merged|m30m|m38m|ig1b|instagram|swsl"
        r"|swag|seer|yfcc|jft|cc12m|sa1b|bamboo|aimv2|vit_pe_|tips|eupe|radio|florence|gemma|pali|qwen|deepseek",
        "images of the web",
        True,
    ),
    (r"in1k|in12k|in21k|in22k|imagenet|\.dino$|\.mae$", "ImageNet", False),
)


def described_weights(protocol: Protocol) -> StartingWeights | None:
    """Return what a record says of a protocol's starting weights; None where they are random."""
    if protocol.weights == "none":
        return None
    if protocol.weights_kind == "timm":
        name = published_name(protocol)
        published = timm.get_pretrained_cfg(name) or PretrainedCfg()
        return _described(f"timm:{name}", name, protocol, published.license)
    config, source = LocalWeights.of(protocol).config, protocol.as_recorded()["weights"]
    if config is None:
        return _described(source, source, protocol, None, trusted=False)
    told = config.get("pretrained_cfg") or config
    words = f"{source}.{config['architecture']}.{told.get('tag') or ''}"
    return _described(source, words, protocol, told.get("license"), trusted=source.startswith("hub:timm/"))


def _described(
    source: str, words: str, protocol: Protocol, licence: str | None, *, trusted: bool = True
) -> StartingWeights:
    """Return what is known of weights.

    Parameters
    ----------
    words : in which the known names are looked for
    trusted : whether timm says what they are
    """
    sha256 = protocol.weights_sha256 or None
    for pattern, data, seen in _KNOWN:
        if re.search(pattern, words.lower()) and (seen or trusted):
            return StartingWeights(source, sha256, licence, data, seen)
    return StartingWeights(source, sha256, licence, None, "unknown")
