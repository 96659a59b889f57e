"""Remove channels from a network: which values of each tensor stay, as a step of surgery that JSON can hold.

A step lists bit masks and, for each tensor that shrinks, the mask along each of its dimensions. What decides which
channels go (`compress.prune`) needs a library and data; taking them out again needs neither, so a pruned network
reloads anywhere, and the step applied to the unpruned weights gives the pruned ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.errors import ModelError

_NUMBERS = (bool, int, float, str)


def prune_step(before: nn.Module, after: nn.Module, kept: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the step of surgery that makes `after` of `before`.

    Args:
        before: The network as it was.
        after: The same with channels taken out; attributes of its modules may differ too.
        kept: By name of a tensor of `after`, of the same shape: where each of its values lay in the tensor of `before`,
            as an index into that tensor flattened.
    """
    masks: dict[str, int] = {}
    keep: dict[str, list[int | None]] = {}
    for name, place in kept.items():
        old = tuple(before.state_dict()[name].shape)
        if tuple(place.shape) == old:
            continue
        dims = [_along(place, old, dim) for dim in range(len(old))]
        texts = [None if dim is None else _to_text(dim, size) for dim, size in zip(dims, old, strict=True)]
        keep[name] = [None if text is None else masks.setdefault(text, len(masks)) for text in texts]
    return {"op": "prune", "masks": list(masks), "keep": keep, "set": _changed(before, after, keep)}


def prune_network(network: nn.Module, step: Mapping[str, Any], name: str) -> nn.Module:
    """Return `network` with the channels that a step keeps, in place; its weights go with it.

    Raises:
        ModelError: The step is of another network.
    """
    masks = [_from_text(text) for text in step["masks"]]
    touched = set()
    for path, dims in step["keep"].items():
        owner, _, attribute = path.rpartition(".")
        try:
            module = network.get_submodule(owner)
            shrunk = _selected(getattr(module, attribute), [None if i is None else masks[i] for i in dims])
        except (AttributeError, IndexError, RuntimeError) as error:
            raise _of_another(name, path, str(error)) from error
        touched.add(owner)
        old = module._parameters.get(attribute)
        if old is not None:
            module._parameters[attribute] = nn.Parameter(shrunk, requires_grad=old.requires_grad)
        else:
            module._buffers[attribute] = shrunk
    for owner, values in step["set"].items():
        for attribute, value in values.items():
            setattr(network.get_submodule(owner), attribute, tuple(value) if isinstance(value, list) else value)
    for owner in touched:
        _restate(network.get_submodule(owner))
    return network


def _selected(tensor: Tensor, keep: Sequence[tuple[int, Tensor] | None]) -> Tensor:
    """Return the values of a tensor that are kept along each dimension."""
    found = tensor.detach()
    for dim, mask in enumerate(keep):
        if mask is None:
            continue
        size, places = mask
        if tensor.shape[dim] != size:
            raise RuntimeError(f"{tensor.shape[dim]} values along dimension {dim}, the step was made for {size}")
        found = found.index_select(dim, places.to(found.device))
    return found.clone()


def _along(place: Tensor, old: tuple[int, ...], dim: int) -> Tensor | None:
    """Return the indices kept along a dimension, ascending; None where all are."""
    if place.shape[dim] == old[dim]:
        return None
    stride = 1
    for side in old[dim + 1 :]:
        stride *= side
    first = place.movedim(dim, 0).reshape(place.shape[dim], -1)[:, 0]
    return (first.round().long() // stride) % old[dim]


def _to_text(places: Tensor, size: int) -> str:
    """Return which of `size` are kept as "SIZE:HEX", the first channel in the lowest bit."""
    bits = sum(1 << int(place) for place in places)
    return f"{size}:{bits:x}"


def _from_text(text: str) -> tuple[int, Tensor]:
    size, bits = int(text.partition(":")[0]), int(text.partition(":")[2], 16)
    return size, torch.tensor([place for place in range(size) if bits >> place & 1], dtype=torch.long)


def _changed(before: nn.Module, after: nn.Module, keep: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the plain attributes of modules that differ and that the shapes of their tensors do not tell."""
    told = {name.rpartition(".")[0] for name in keep}
    found: dict[str, dict[str, Any]] = {}
    for path, module in after.named_modules():
        old = vars(before.get_submodule(path))
        sizes = _sizes(module) if path in told else {}
        differ = {
            name: value
            for name, value in vars(module).items()
            if not name.startswith("_") and name not in sizes and _plain(value) and old.get(name) != value
        }
        if differ:
            found[path] = {name: list(value) if isinstance(value, tuple) else value for name, value in differ.items()}
    return found


def _plain(value: Any) -> bool:
    return isinstance(value, _NUMBERS) or (isinstance(value, tuple) and all(isinstance(one, _NUMBERS) for one in value))


def _restate(module: nn.Module) -> None:
    for name, value in _sizes(module).items():
        setattr(module, name, value)


def _sizes(module: nn.Module) -> dict[str, Any]:
    """Return the sizes that a module states of itself and its tensors tell."""
    if isinstance(module, nn.Conv2d):
        return {"out_channels": module.weight.shape[0], "in_channels": module.weight.shape[1] * module.groups}
    if isinstance(module, nn.Linear):
        return {"out_features": module.weight.shape[0], "in_features": module.weight.shape[1]}
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
        return {"num_features": module.running_mean.shape[0]}
    if isinstance(module, nn.LayerNorm) and module.weight is not None:
        return {"normalized_shape": tuple(module.weight.shape)}
    return {}


def _of_another(name: str, path: str, why: str) -> ModelError:
    return ModelError(
        f"the prune step in the surgery of {name!r} does not fit its tensor {path!r}: {why}",
        do="use the architecture.json that was written with these weights",
    )
