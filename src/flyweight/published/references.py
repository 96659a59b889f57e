"""Public results that a claim is held against. Each with its source; nothing here was measured by Flyweight."""

from __future__ import annotations

from dataclasses import dataclass

# huggingface/pytorch-image-models, results/results-imagenet.csv at aa4b585 (August 2026).
TIMM = "timm's results-imagenet.csv at aa4b585"
BEST_IMAGENET = (90.056, "eva02_large_448 (305 M parameters, ImageNet-22k pretraining)")

# Best top-1 (%) on ImageNet-1k of published weights of the same network, any size and pretraining.
SAME_NET: dict[str, tuple[float, str]] = {
    "convnext_tiny": (85.154, "in12k_ft_in1k at 384 px"),
    "tf_efficientnetv2_s": (84.332, "in21k_ft_in1k at 384 px"),
    "efficientnetv2_s": (84.332, "tf_efficientnetv2_s.in21k_ft_in1k at 384 px"),
    "torchvision:efficientnet_v2_s": (84.332, "tf_efficientnetv2_s.in21k_ft_in1k at 384 px"),
    "mobilenetv3_large_100": (77.920, "miil_in21k_ft_in1k at 224 px"),
    "mobilenetv3_small_100": (67.922, "tf_mobilenetv3_small_100.in1k at 224 px"),
    "mobilevitv2_050": (70.156, "cvnets_in1k at 256 px"),
    "mobilevitv2_075": (75.612, "cvnets_in1k at 256 px"),
    "mobilevitv2_100": (78.088, "cvnets_in1k at 256 px"),
    "mobilevit_xxs": (68.936, "cvnets_in1k at 256 px"),
    "mobilevit_xs": (74.618, "cvnets_in1k at 256 px"),
    "mobilevit_s": (78.298, "cvnets_in1k at 256 px"),
    "repvgg_a2": (76.488, "rvgg_in1k at 224 px"),
    "tiny_vit_21m_224": (85.088, "dist_in22k_ft_in1k at 224 px"),
    "resnet18": (73.286, "fb_swsl_ig1b_ft_in1k at 224 px"),
    "resnet18d": (76.012, "ra4_e3600_r224_in1k at 288 px"),
}


@dataclass(frozen=True)
class Public:
    """A public network on a small data set: its parameters, its accuracy (%) and where that is written."""

    params: int
    accuracy: float
    source: str


SMALL: dict[str, tuple[Public, ...]] = {
    "mnist": (
        Public(1_936, 99.13, "ruslangrimov/mnist-minimal-model"),
        Public(9_736, 99.45, "blackpython890/S5"),
        Public(19_898, 99.54, "pradeep6kumar/mnist_994"),
    ),
    "fashion-mnist": (Public(100_000, 92.5, "zalandoresearch/fashion-mnist, two convolutions, below 100 K"),),
    "cifar10": (
        Public(78_666, 87.2, "mlcommons/tiny, ResNet-8"),
        Public(97_530, 94.4, "xvel/cifar10-tiniest"),
    ),
}
