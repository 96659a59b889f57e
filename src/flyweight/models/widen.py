"""The same function in a wider network of the same kind: channels added that are zero throughout.

Some runtimes compute a convolution fast only where its channels are a multiple of 4 (ONNX Runtime's blocked layout, for
depthwise ones). A few zeros then cost less time than they save.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from flyweight.errors import ModelError
from flyweight.models.architecture import Architecture

_PIXELS = 8  # random images that both networks must answer alike


def widen(
    architecture: Architecture, weights: Mapping[str, Tensor], args: Mapping[str, Any]
) -> tuple[Architecture, dict[str, Tensor]]:
    """Return the architecture with these arguments, and weights with which it computes the same.

    Args:
        args: Of the wider network, such as {"width": 36, "second": 56}; what is not named stays.

    Raises:
        ModelError: It is not wider everywhere, or zeros do not stay zeros in it.
    """
    wider = replace(architecture, args={**architecture.args, **args})
    network = wider.build()
    found = {}
    for name, empty in network.state_dict().items():
        old = weights.get(name)
        if old is None or old.dim() != empty.dim() or any(a > b for a, b in zip(old.shape, empty.shape, strict=True)):
            raise ModelError(
                f"{wider.name} with {wider.args} is not a wider {architecture.args}: {name} does not fit",
                do="give at least as many channels everywhere",
            )
        # A variance of one and all else zero: an added channel is zero before and after every norm.
        filled = torch.ones_like(empty) if name.endswith("running_var") else torch.zeros_like(empty)
        filled[tuple(slice(side) for side in old.shape)] = old
        found[name] = filled
    _refuse_another_function(architecture, weights, wider, found)
    return wider, found


def multiple_of_four(architecture: Architecture) -> dict[str, int]:
    """Return the arguments that round a tiny_sep's channels up to multiples of 4. Raises ModelError for others."""
    if not architecture.name.startswith("tiny_sep"):
        raise ModelError(f"channels of {architecture.name!r} cannot be padded", do="pad a tiny_sep network")
    width = int(architecture.args.get("width", architecture.name.rpartition("_")[2]))
    asked = {
        "width": width,
        "stem": architecture.args.get("stem") or 3 * width // 4,
        "second": architecture.args.get("second") or 3 * width // 2,
    }
    return {name: -(-value // 4) * 4 for name, value in asked.items()}


def _refuse_another_function(
    architecture: Architecture, weights: Mapping[str, Tensor], wider: Architecture, padded: Mapping[str, Tensor]
) -> None:
    shape = (_PIXELS, architecture.in_chans, architecture.image_size, architecture.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    answers = []
    for made, state in ((architecture, weights), (wider, padded)):
        network = made.build()
        network.load_state_dict(dict(state))
        with torch.no_grad():
            answers.append(network.eval()(images))
    if not torch.allclose(answers[0], answers[1], rtol=1e-4, atol=1e-4):
        raise ModelError(
            f"zeros do not stay zeros in {wider.name}: the padded network gives other answers",
            do="leave its channels as they are",
        )
