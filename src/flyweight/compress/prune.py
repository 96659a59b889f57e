"""Structured pruning: whole channels go, from every layer that holds them, until a target is met.

Which channels belong together is found by torch-pruning's dependency graph; which go, by the size of their weights or
by what the loss would lose. How many, by bisection: every layer gives the same share, until MACs, parameters, size or
latency are what was asked. What stays is written into the architecture (`models.prune`): the network really is smaller
and reloads without torch-pruning.
Source: Fang et al. 2023, "DepGraph: Towards Any Structural Pruning" (arXiv:2301.12900); Molchanov et al. 2019,
"Importance Estimation for Neural Network Pruning" (arXiv:1906.10771), for `taylor`.
"""

from __future__ import annotations

import copy
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from flyweight.compress.context import Context, Progressing, Said
from flyweight.compress.step import Options
from flyweight.errors import CompressError, MissingExtraError, OrderError
from flyweight.export.onnx import to_onnx
from flyweight.measure.budget import Budget
from flyweight.measure.device import HOST
from flyweight.measure.speed import time_models
from flyweight.models.adapt import evaluating
from flyweight.models.architecture import Architecture, fold
from flyweight.models.prune import prune_step
from flyweight.train.flops import counter
from flyweight.train.trained import Trained

MOST = 0.95  # of the channels of a layer that may go
TRIES = {"macs": 8, "params": 8, "size": 8, "latency": 6}
TAYLOR_IMAGES = 512
_METRIC = {"macs": "macs", "params": "params", "size": "size", "latency": "latency_p50"}


class Prune(Options):
    """How much stays, by one measure: a share of what was (0.5), or a limit with a unit (size=500KB, latency=1ms).

    Attributes:
        round: Channels stay a multiple of this, which kernels like; None: 8, or less for narrow networks.
        importance: magnitude: size of the weights; taylor: change of the loss on training images.
        scope: uniform: every layer gives the same share; global: the least important channels of all.
    """

    macs: str | None = None
    params: str | None = None
    size: str | None = None
    latency: str | None = None
    round: int | None = Field(default=None, ge=1)
    importance: Literal["magnitude", "taylor"] = "magnitude"
    scope: Literal["uniform", "global"] = "uniform"

    @model_validator(mode="after")
    def _one_target(self) -> Prune:
        given = [name for name in TRIES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(TRIES)}, not {len(given)}")
        _limit(*self.target, before=1.0)  # or says what is wrong with it
        return self

    @property
    def target(self) -> tuple[str, str]:
        """Return what is limited, and how the limit was written."""
        return next((name, str(getattr(self, name))) for name in TRIES if getattr(self, name) is not None)


@dataclass(frozen=True)
class Pruned:
    """A network with channels taken out, before any training, and what it comes to by the measure of the target."""

    network: nn.Module
    step: dict[str, Any]
    value: float


def prune(trained: Trained, context: Context, options: Prune) -> Progressing:
    """Return the run with the fewest channels taken out that meets the target; train it after (finetune, distill).

    Raises:
        CompressError: It cannot be traced, or the target is out of reach.
        OrderError: It is on int8 levels, or has early exits.
        MissingExtraError: torch-pruning is not installed.
    """
    refuse(trained.architecture)
    network = trained.network()
    importance = _importance(network, trained, context, options)
    metric, wanted = options.target
    value_of = _VALUES[metric]
    before = value_of(network, trained.architecture, context)
    limit = _limit(metric, wanted, before)
    rounding = options.round or _rounding(network)

    def attempt(ratio: float) -> Pruned:
        made, step = take_out(
            network, trained.architecture, ratio, importance, rounding=rounding, everywhere=options.scope == "global"
        )
        return Pruned(made, step, value_of(made, extended(trained.architecture, step), context))

    found = _bisect(attempt, limit, TRIES[metric], f"{metric}={wanted}")
    yield Said(f"{metric} {before:,.4g} → {found.value:,.4g} (at most {limit:,.4g})")
    return context.changed(trained, extended(trained.architecture, found.step), found.network.state_dict())


def refuse(architecture: Architecture) -> None:
    """Raise OrderError for a network whose channels cannot be taken out any more."""
    late = [step["op"] for step in architecture.surgery if step["op"] in {"quantize", "exit", "mirror", "dual"}]
    if late:
        raise OrderError(
            f"prune comes before {late[0]}: the channels of {architecture.name!r} are tied to it now",
            do="put prune earlier in the chain, on the run as it was before",
        )


def extended(architecture: Architecture, step: dict[str, Any]) -> Architecture:
    """Return the architecture with one more step of surgery."""
    return replace(architecture, surgery=(*architecture.surgery, step))


def take_out(
    network: nn.Module,
    architecture: Architecture,
    ratio: float,
    importance: Any,
    *,
    rounding: int = 8,
    everywhere: bool = False,
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a copy of `network` without a share of its channels, and the step of surgery that makes it.

    Args:
        ratio: Share of the channels of each layer that go, 0 to 1; of all layers together with `everywhere`.
        importance: Of torch-pruning; its gradients, where it reads them, are those of `network`.
        rounding: Channels stay a multiple of this.

    Raises:
        CompressError: The network cannot be traced or pruned.
        MissingExtraError: torch-pruning is not installed.
    """
    pruning = library()
    made, places = copy.deepcopy(network), _places(network)
    for own, theirs in zip(made.parameters(), network.parameters(), strict=True):
        own.grad = theirs.grad
    paths: dict[Any, str] = {module: path for path, module in made.named_modules()}
    paths |= {parameter: path for path, parameter in made.named_parameters()}
    try:
        with _quiet(), evaluating(made):
            pruner = _pruner(pruning)(
                made.requires_grad_(True),
                architecture.example(),
                importance=importance,
                global_pruning=everywhere,
                pruning_ratio=ratio,
                max_pruning_ratio=MOST,
                ignored_layers=_outputs(made, architecture),
                round_to=rounding,
            )
            for group in pruner.step(interactive=True):
                for dependency, indices in group:
                    _follow(dependency, indices, places, paths)
                group.prune()
            made(architecture.example(2))
    # All that torch-pruning raises where it cannot follow a network, such as ShuffleNet's shuffles.
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError) as error:
        raise CompressError(
            f"the channels of {architecture.name!r} cannot be taken out: {type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0][:160]}",
            do="choose a convolutional network (resnet18, mobilenetv3_*, tiny_*), or a smaller one of its family",
        ) from error
    kept = {name: value.detach() for name, value in places.state_dict().items()}
    return made, prune_step(network, made, kept)


def library() -> Any:
    """Return torch-pruning. Raises MissingExtraError."""
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingExtraError(
            f"pruning needs torch-pruning, which cannot be imported ({error})",
            do="pip install 'flyweight[compress]'",
        ) from error
    return torch_pruning


def _pruner(pruning: Any) -> Any:
    """Return torch-pruning's pruner, but that it leaves each layer at least one multiple of channels, or all it has.

    It rounds down to a multiple, which for a narrow layer is none at all.
    """

    class Pruner(pruning.pruner.BasePruner):  # type: ignore[misc]
        def _round_to(self, n_pruned: int, current_channels: int, round_to: int) -> int:
            kept = max((current_channels - n_pruned) // round_to * round_to, min(round_to, current_channels))
            return max(current_channels - kept, 0)

    return Pruner


def _places(network: nn.Module) -> nn.Module:
    """Return a copy in which every value is its own place in its tensor: after the same cuts it tells what was kept."""
    places = copy.deepcopy(network)
    for tensor in (*places.parameters(), *places.buffers()):
        tensor.grad = None
        tensor.data = torch.arange(tensor.numel(), dtype=torch.float64).reshape(tensor.shape)  # exact to 2**53
    return places


def _follow(dependency: Any, indices: Any, places: nn.Module, paths: dict[Any, str]) -> None:
    """Do to the places what a dependency is about to do to the network."""
    target = dependency.target.module
    if target not in paths:
        return  # an operation without values: a sum, a concatenation
    plain = [getattr(index, "idx", index) for index in indices]
    dependency.handler.__self__.pruning_dim = dependency.target.pruning_dim
    if isinstance(target, nn.Parameter):
        owner, _, name = paths[target].rpartition(".")
        module = places.get_submodule(owner)
        module._parameters[name] = dependency.handler(module._parameters[name], plain)
        return
    dependency.handler(places.get_submodule(paths[target]), plain)


def _outputs(network: nn.Module, architecture: Architecture) -> list[nn.Module]:
    """Return the layers with one output a class: these stay."""
    last: list[nn.Module] = []
    kinds = (nn.Linear, nn.Conv2d)
    handles = [
        module.register_forward_hook(lambda module, inputs, output: last.append(module))
        for module in network.modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        network(architecture.example())
    for handle in handles:
        handle.remove()
    return last[-1:]


def _importance(network: nn.Module, trained: Trained, context: Context, options: Prune) -> Any:
    pruning = library()
    if options.importance == "magnitude":
        return pruning.importance.GroupMagnitudeImportance(p=2)
    images, labels = context.training_images(trained, TAYLOR_IMAGES)
    with evaluating(network):
        for at in range(0, len(images), 64):
            logits = network(torch.from_numpy(images[at : at + 64]))
            F.cross_entropy(logits, torch.from_numpy(labels[at : at + 64])).backward()
    return pruning.importance.GroupTaylorImportance()


def _rounding(network: nn.Module) -> int:
    """Return what kernels like: multiples of 8, for narrow networks of 4 or none."""
    widest = max((m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)), default=8)
    return 8 if widest >= 64 else 4 if widest >= 24 else 1


def _bisect(attempt: Callable[[float], Pruned], limit: float, tries: int, wanted: str) -> Pruned:
    """Return what meets the limit with the smallest share taken out."""
    low, high = 0.0, MOST
    best = attempt(high)
    if best.value > limit:
        raise CompressError(
            f"{wanted} is out of reach: with {MOST:.0%} of every layer's channels gone {best.value:,.4g} remain, more "
            f"than {limit:,.4g}",
            do="ask for more, or begin with a smaller network",
        )
    for _ in range(tries):
        middle = (low + high) / 2
        made = attempt(middle)
        if made.value <= limit:
            high, best = middle, made
        else:
            low = middle
    return best


def _limit(metric: str, wanted: str, before: float) -> float:
    """Return the limit in the unit of the measure: shares up to 1 are of what was.

    Raises:
        CompressError: It is no positive number, or for the clock of another machine.
        BudgetError: Its unit is unknown.
    """
    try:
        share = float(wanted)
    except ValueError:
        (limit,) = Budget.parse(f"{_METRIC[metric]}<{wanted}").limits
        if limit.device not in {None, HOST}:
            raise CompressError(
                f"{metric}={wanted}: latency is measured on this machine while channels are taken out, not on "
                f"{limit.device}",
                do=f"leave out @{limit.device}, or give macs=, params= or size=, which hold everywhere",
                more="docs/compress.md#prune",
            ) from None
        return limit.value
    if not math.isfinite(share):
        raise CompressError(f"{metric}={wanted} is no number", do=f"give a share such as {metric}=0.5") from None
    if share > 1.0:
        return share
    if share <= 0.0:
        raise CompressError(f"{metric}={wanted} leaves nothing", do=f"give a share such as {metric}=0.5")
    return share * before


def _macs(network: nn.Module, architecture: Architecture, context: Context) -> float:
    with counter() as counted, evaluating(network), torch.no_grad():
        network(architecture.example())
    return float(counted.get_total_flops()) / 2


def _params(network: nn.Module, architecture: Architecture, context: Context) -> float:
    folded, _ = fold(copy.deepcopy(network), architecture)
    return float(sum(parameter.numel() for parameter in folded.parameters()))


def _size(network: nn.Module, architecture: Architecture, context: Context) -> float:
    with _exported(network, architecture) as file:
        return float(file.stat().st_size)


def _latency(network: nn.Module, architecture: Architecture, context: Context) -> float:
    with _exported(network, architecture) as file:
        (found,) = time_models([file], threads=context.threads, quick=True)
    return float(np.median([ms for samples in found.samples_ms for ms in samples]))


@contextmanager
def _exported(network: nn.Module, architecture: Architecture) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flyweight-prune-") as folder:
        yield to_onnx(network, architecture, Path(folder) / "model.onnx")


_VALUES: dict[str, Callable[[nn.Module, Architecture, Context], float]] = {
    "macs": _macs,
    "params": _params,
    "size": _size,
    "latency": _latency,
}


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


__all__ = ["Prune", "Pruned", "prune", "take_out"]
