"""Quantization-aware training: the network learns on the levels of its int8 file (`models.quantize`)."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import nn

from flyweight.compress.context import Context, Progressing
from flyweight.compress.retrain import continued, retrain
from flyweight.compress.step import Options
from flyweight.errors import OrderError
from flyweight.train.recipe import DistillPart
from flyweight.train.trained import Trained


class Qat(Options):
    """How long, at what rate, and what stays in float.

    Attributes:
        lr: Peak rate of SGD: the weights are close to good already, whatever trained them.
        keep: Layers whose weights stay float, separated by "+": paths, or first, last, se (the gates of
            squeeze-and-excitation).
        teacher: Share of the answers of the run before compression in the loss; 0: labels alone.
        images: Training images in an epoch, drawn anew for each; None: all.
    """

    epochs: int = Field(default=3, ge=1)
    lr: float = Field(default=0.005, gt=0.0)
    keep: str = ""
    teacher: float = Field(default=0.9, ge=0.0, le=1.0)
    temperature: float = Field(default=4.0, gt=0.0)
    images: int | None = Field(default=None, ge=2)
    seed: int = Field(default=0, ge=0)


def qat(trained: Trained, context: Context, options: Qat) -> Progressing:
    """Return the run on int8 levels, trained there, with the run before compression as its teacher.

    Raises:
        OrderError: It is on int8 levels already, or has early exits.
        ModelError: The network cannot be traced, or a layer to keep does not exist.
    """
    before = trained.architecture
    done = [step["op"] for step in before.surgery if step["op"] in {"quantize", "exit", "mirror"}]
    if done:
        raise OrderError(
            f"qat comes before {done[0]}, which {before.name!r} has been through",
            do="train it further with finetune, or put qat earlier in the chain",
        )
    network = trained.network()
    after = before.quantize(keep_float=layers_kept(network, options.keep))
    quantized = before.operate(network, after.surgery[len(before.surgery) :])
    begin = replace(trained, architecture=after, weights=quantized.state_dict())
    teaching = None
    if options.teacher:
        teaching = DistillPart(
            teacher=str(context.original), weight=options.teacher, temperature=options.temperature
        ).model_dump()
    recipe = continued(
        trained,
        name="qat",
        epochs=options.epochs,
        lr=options.lr,
        lr_factor=1.0,
        distill=teaching,
        precision="fp32",
        compile=False,
        clip_grad_norm=1.0,
        ema_decay=None,  # ranges follow the weights of now, not an average of them
        epoch_images=options.images,
        seed=options.seed,
        optim={"name": "sgd", "lr": options.lr, "weight_decay": 0.0, "momentum": 0.9},
    )
    return (yield from retrain(begin, context, recipe))


def layers_kept(network: nn.Module, text: str) -> tuple[str, ...]:
    """Return the paths inside `net` that a text such as "first+se" names."""
    inner = network.get_submodule("net")
    layers = [path for path, module in inner.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    gates = [path for path in layers if any(part in _GATES for part in path.split("."))]
    groups = {"first": layers[:1], "last": layers[-1:], "se": gates}
    found: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in text.split("+"))):
        found |= dict.fromkeys(groups.get(name, [name]))
    return tuple(found)


_GATES = {"se", "attn", "fc1", "fc2", "conv_reduce", "conv_expand"}
