"""The catalogue of networks: one name space over our own, timm's and torchvision's. Importing it needs no torch.

A new network is one line in `_ROWS` (or one file like tiny.py and a line here); `tests/models` tests whatever is
listed. Any other timm network works by its name or as `timm:NAME`, without that promise.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from flyweight.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from torch import nn

SMALLEST = 28  # px: the suite tests every network of the catalogue from here on


@dataclass(frozen=True)
class Entry:
    """One network of the catalogue.

    Attributes:
        name: Its name here.
        family: The name of the paper's network.
        library: "flyweight", "timm" or "torchvision".
        make: `make(num_classes, in_chans, image_size, **args)` gives the bare network (no normalisation).
        paper: Where it was published.
        licence: Of the code that builds it.
    """

    name: str
    family: str
    library: str
    make: Callable[..., nn.Module]
    paper: str
    licence: str


def find(name: str) -> Entry:
    """Return the network called `name`: a name of the catalogue, `timm:NAME`, or any name timm knows.

    Raises:
        ModelError: There is none; the message lists the closest names.
        MissingExtraError: The name is not in the catalogue and timm is not installed.
    """
    if name in ZOO:
        return ZOO[name]
    wanted = name.removeprefix("timm:")
    known = _timm_names()
    if wanted in known:
        return _timm_entry(wanted, family=wanted, paper=f"see timm's page of {wanted}", name=name)
    close = _closest(wanted, ZOO, 3)
    close += _closest(wanted, set(known) - ZOO.keys(), 4 - len(close))
    raise ModelError(
        f"there is no network called {name!r}",
        do=(f"did you mean {', '.join(close)}? " if close else "") + "`flyweight models` lists the catalogue",
    )


def names(pattern: str = "*") -> list[str]:
    """Return the names of the catalogue that match a shell pattern, or contain it when it has no wildcard."""
    wild = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return [name for name in ZOO if fnmatch.fnmatchcase(name, wild)]


def check_size(name: str, image_size: int) -> None:
    """Check that images of this side are in the range that the catalogue promises for its networks.

    Raises:
        ModelError: They are smaller.
    """
    if image_size < SMALLEST:
        raise ModelError(
            f"image_size is {image_size} px, and {name} is tested from {SMALLEST} px on",
            do=f"give an image_size of {SMALLEST} px or more; smaller images are resized to it",
        )


def _closest(wanted: str, known: Iterable[str], n: int) -> list[str]:
    """Return the names most like `wanted`, or that begin most like it: `mobilnetv3` is meant to be a beginning."""

    def likeness(name: str) -> tuple[float, float]:
        whole, start = (difflib.SequenceMatcher(None, text, wanted).ratio() for text in (name, name[: len(wanted) + 1]))
        return max(whole, start), whole

    ranked = sorted(((*likeness(name), name) for name in sorted(known)), key=lambda found: found[:2], reverse=True)
    return [name for likely, _, name in ranked[:n] if likely >= 0.6]


def _timm_names() -> list[str]:
    try:
        import timm
    except ImportError as error:
        raise _no_train_extra() from error
    return list(timm.list_models())


def _no_train_extra() -> MissingExtraError:
    return MissingExtraError(
        "building networks needs torch and timm, which are not installed",
        do='pip install "flyweight[train]"',
    )


def _timm_net(timm_name: str, num_classes: int, in_chans: int, image_size: int, **args: Any) -> nn.Module:
    import timm

    config = timm.get_pretrained_cfg(timm_name, allow_unregistered=True)
    if config is not None and config.fixed_input_size:  # position embeddings made for one size
        args = {"img_size": image_size, **args}
    try:
        network: nn.Module = timm.create_model(timm_name, num_classes=num_classes, in_chans=in_chans, **args)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"timm cannot build {timm_name} for {in_chans} × {image_size} × {image_size} px with {args}: {error}",
            do=f"change the arguments {sorted(args)} or the image_size, or choose another network",
        ) from error
    return network


def _torchvision_net(tv_name: str, num_classes: int, in_chans: int, image_size: int, **args: Any) -> nn.Module:
    import torchvision

    from flyweight.models.adapt import set_channels

    try:
        network = torchvision.models.get_model(tv_name, weights=None, num_classes=num_classes, **args)
    except TypeError as error:
        raise ModelError(f"torchvision cannot build {tv_name} with {args}: {error}", do="check args") from error
    return set_channels(network, in_chans)


def _tiny_net(
    maker: str, defaults: dict[str, int], num_classes: int, in_chans: int, image_size: int, **args: Any
) -> Any:
    from flyweight.models import tiny

    try:
        return getattr(tiny, maker)(num_classes, in_chans, image_size, **{**defaults, **args})
    except TypeError as error:
        raise ModelError(
            f"{maker} cannot be built with {args}: {error}",
            do="use width; depth for tiny_resnet, tiny_sep, tiny_vgg; stem and second for tiny_sep; wide for tiny_vgg; "
            "widths for pool_cnn",
        ) from error


def _timm_entry(timm_name: str, *, family: str, paper: str, name: str | None = None) -> Entry:
    return Entry(
        name=name or timm_name,
        family=family,
        library="timm",
        make=partial(_timm_net, timm_name),
        paper=paper,
        licence="Apache-2.0",
    )


def _torchvision_entry(tv_name: str, *, family: str, paper: str) -> Entry:
    make = partial(_torchvision_net, tv_name)
    return Entry(tv_name, family, "torchvision", make, paper, "BSD-3-Clause")


def _tiny_entries() -> list[Entry]:
    rows: list[tuple[str, str, dict[str, int], str]] = []
    rows += [(f"tiny_cnn_{w}", "tiny_cnn", {"width": w}, "ours") for w in (4, 6, 8, 12, 16, 24, 32)]
    rows += [(f"tiny_ds_{w}", "tiny_ds", {"width": w}, "arXiv:1704.04861") for w in (8, 16, 32, 64)]
    rows += [(f"tiny_sep_{w}", "tiny_sep", {"width": w}, "ours") for w in (12, 16, 24, 32, 48, 64)]
    for layers, depth, widths in ((8, 1, (4, 8, 12, 16, 24, 32)), (14, 2, (8, 16)), (20, 3, (8, 16))):
        for w in widths:
            rows.append((f"tiny_resnet{layers}_{w}", "tiny_resnet", {"width": w, "depth": depth}, "arXiv:1512.03385"))
    rows += [(f"tiny_vgg_{w}", "tiny_vgg", {"width": w}, "arXiv:2404.00498") for w in (16, 32, 48, 64)]
    rows.append(("pool_cnn", "pool_cnn", {}, "arXiv:2501.15547"))
    return [
        Entry(name, maker, "flyweight", partial(_tiny_net, maker, defaults), paper, "Apache-2.0")
        for name, maker, defaults, paper in rows
    ]


# family, paper, timm names
_TIMM_ROWS: tuple[tuple[str, str, str], ...] = (
    ("MobileNetV1", "arXiv:1704.04861", "mobilenetv1_100"),
    ("MobileNetV2", "arXiv:1801.04381", "mobilenetv2_035 mobilenetv2_050 mobilenetv2_075 mobilenetv2_100"),
    ("MobileNetV3", "arXiv:1905.02244", "mobilenetv3_small_050 mobilenetv3_small_075 mobilenetv3_small_100"),
    ("MobileNetV3", "arXiv:1905.02244", "mobilenetv3_large_075 mobilenetv3_large_100"),
    ("MobileNetV4", "arXiv:2404.10518", "mobilenetv4_conv_small_035 mobilenetv4_conv_small_050 mobilenetv4_conv_small"),
    ("MobileNetV4", "arXiv:2404.10518", "mobilenetv4_conv_medium"),
    ("ResNet", "arXiv:1512.03385", "resnet10t resnet14t resnet18 resnet18d"),
    ("EfficientNet", "arXiv:1905.11946", "efficientnet_lite0 efficientnet_b0 efficientnet_b1"),
    (
        "EfficientNetV2",
        "arXiv:2104.00298",
        "tf_efficientnetv2_b0 efficientnetv2_rw_t efficientnetv2_s tf_efficientnetv2_s",
    ),
    ("MobileOne", "arXiv:2206.04040", "mobileone_s0 mobileone_s1 mobileone_s2"),
    ("RepVGG", "arXiv:2101.03697", "repvgg_a0 repvgg_a1 repvgg_a2"),
    ("RepViT", "arXiv:2307.09283", "repvit_m0_9 repvit_m1_0 repvit_m1_1"),
    ("GhostNet", "arXiv:1911.11907", "ghostnet_050 ghostnet_100"),
    ("GhostNetV2", "arXiv:2211.12905", "ghostnetv2_100"),
    ("GhostNetV3", "arXiv:2404.11202", "ghostnetv3_050 ghostnetv3_100"),
    ("RepGhost", "arXiv:2211.06088", "repghostnet_050 repghostnet_100"),
    ("PP-LCNet", "arXiv:2109.15099", "lcnet_035 lcnet_050 lcnet_075 lcnet_100"),
    ("TinyNet", "arXiv:2010.14819", "tinynet_e tinynet_d tinynet_c tinynet_b tinynet_a"),
    ("MnasNet", "arXiv:1807.11626", "mnasnet_small mnasnet_050 mnasnet_100 semnasnet_075"),
    ("FBNet", "arXiv:1812.03443", "fbnetc_100"),
    ("Single-Path NAS", "arXiv:1904.02877", "spnasnet_100"),
    ("HardCoRe-NAS", "arXiv:2102.11646", "hardcorenas_a"),
    ("RegNet", "arXiv:2003.13678", "regnetx_002 regnety_002 regnety_004"),
    ("ReXNet", "arXiv:2007.00992", "rexnet_100"),
    ("DLA", "arXiv:1707.06484", "dla46_c dla46x_c"),
    ("VoVNetV2", "arXiv:1911.06667", "ese_vovnet19b_slim_dw"),
    ("ConvNeXt", "arXiv:2201.03545", "convnext_atto convnext_femto convnext_pico convnext_nano convnext_tiny"),
    ("EdgeNeXt", "arXiv:2206.10589", "edgenext_xx_small edgenext_x_small edgenext_small"),
    ("MobileViT", "arXiv:2110.02178", "mobilevit_xxs mobilevit_xs mobilevit_s"),
    ("MobileViTv2", "arXiv:2206.02680", "mobilevitv2_050 mobilevitv2_075 mobilevitv2_100"),
    ("EfficientViT (MIT)", "arXiv:2205.14756", "efficientvit_b0 efficientvit_b1"),
    ("EfficientViT (MSRA)", "arXiv:2305.07027", "efficientvit_m0 efficientvit_m1 efficientvit_m2"),
    ("FastViT", "arXiv:2303.14189", "fastvit_t8 fastvit_t12"),
    (
        "StarNet",
        "arXiv:2403.19967",
        "starnet_s050 starnet_s100 starnet_s150 starnet_s1 starnet_s2 starnet_s3 starnet_s4",
    ),
    ("TinyViT", "arXiv:2207.10666", "tiny_vit_5m_224 tiny_vit_11m_224 tiny_vit_21m_224"),
)
_TORCHVISION_ROWS: tuple[tuple[str, str, str], ...] = (
    ("SqueezeNet", "arXiv:1602.07360", "squeezenet1_0 squeezenet1_1"),
    ("ShuffleNetV2", "arXiv:1807.11164", "shufflenet_v2_x0_5 shufflenet_v2_x1_0"),
    ("ShuffleNetV2", "arXiv:1807.11164", "shufflenet_v2_x1_5 shufflenet_v2_x2_0"),
)


def _catalogue() -> dict[str, Entry]:
    entries = _tiny_entries()
    for family, paper, row in _TIMM_ROWS:
        entries += [_timm_entry(name, family=family, paper=paper) for name in row.split()]
    for family, paper, row in _TORCHVISION_ROWS:
        entries += [_torchvision_entry(name, family=family, paper=paper) for name in row.split()]
    return {entry.name: entry for entry in entries}


ZOO: dict[str, Entry] = _catalogue()
