"""One step of the loop: accumulation, memory back-off, averaging, schedule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from flyweight.errors import TrainingError
from flyweight.train.loop import State, Stepper
from flyweight.train.optim import Average, learning_rate, make_optimizer
from flyweight.train.recipe import Recipe, Resolved


def settled(**changes: object) -> Resolved:
    plan = {
        "device": "cpu", "precision": "fp32", "channels_last": False, "compile": False, "threads": 1, "micro_batch": 16,
        "resident": True, "image_size": 8, "channels": 1, "shape_policy": "fixed", "mean": (0.5,), "std": (0.5,),
    }  # fmt: skip
    return Resolved.model_validate({**plan, **changes})


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def stepped(recipe: Recipe, network: nn.Module | None = None) -> tuple[dict[str, Tensor], Stepper]:
    network = network or small_net()
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.rand(16, 1, 8, 8, generator=generator), torch.randint(0, 3, (16,), generator=generator)
    stepper = Stepper(State(network, make_optimizer(network, recipe.optim)), recipe)
    stepper(images, labels, 0.1)
    return {name: value.clone() for name, value in network.state_dict().items()}, stepper


def test_small_passes_make_the_same_step_as_one_large_pass() -> None:
    whole, _ = stepped(Recipe(resolved=settled(micro_batch=16)))
    parts, _ = stepped(Recipe(resolved=settled(micro_batch=5)))
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=1e-6, rtol=1e-5)


class Hungry(nn.Module):
    """Runs out of memory above `most` images, as the CPU's allocator words it."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.net, self.most = small_net(), most

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
        return self.net(images)  # type: ignore[no-any-return]


def test_out_of_memory_halves_the_pass_and_keeps_the_step() -> None:
    whole, _ = stepped(Recipe(resolved=settled()))
    found, stepper = stepped(Recipe(resolved=settled()), Hungry(4))
    assert stepper.micro_batch == 4
    for name in whole:
        torch.testing.assert_close(found[f"net.{name}"], whole[name], atol=1e-6, rtol=1e-5)


def test_memory_too_small_for_one_image_is_a_clear_error() -> None:
    with pytest.raises(TrainingError, match="out of memory on a single image"):
        stepped(Recipe(resolved=settled()), Hungry(0))


def test_clipping_bounds_the_step() -> None:
    before = {name: value.clone() for name, value in small_net().state_dict().items()}
    optim = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.0}
    recipe = Recipe.model_validate({"resolved": settled(), "clip_grad_norm": 1e-3, "optim": optim})
    after, _ = stepped(recipe)
    moved = math.sqrt(sum(float((after[name] - before[name]).square().sum()) for name in before))
    assert moved <= 0.1 * 1e-3 * 1.9 * 1.001  # Nesterov: the first step is (1 + momentum) times the gradient


@pytest.mark.parametrize(
    ("schedule", "done", "share"),
    [
        ({"name": "cosine", "warmup_fraction": 0.0}, 0.5, 0.5),
        ({"name": "cosine", "warmup_fraction": 0.2}, 0.1, 0.5),
        ({"name": "cosine", "warmup_fraction": 0.2, "final_fraction": 0.1}, 1.0, 0.1),
        ({"name": "onecycle", "warmup_fraction": 0.5}, 0.75, 0.5),
        ({"name": "step", "warmup_fraction": 0.0, "milestones": [0.5, 0.75], "factor": 0.1}, 0.8, 0.01),
        ({"name": "constant", "warmup_fraction": 0.0}, 0.99, 1.0),
    ],
)
def test_the_learning_rate_is_what_the_schedule_says(schedule: dict[str, object], done: float, share: float) -> None:
    recipe = Recipe.model_validate({"schedule": schedule, "optim": {"lr": 0.2}})
    assert learning_rate(recipe, done) == pytest.approx(0.2 * share)


def test_the_cosine_is_torchs() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([parameter], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=20)
    recipe = Recipe.model_validate({"schedule": {"name": "cosine", "warmup_fraction": 0.0}, "optim": {"lr": 0.3}})
    for step in range(1, 20):
        theirs.step()
        schedule.step()
        assert learning_rate(recipe, step / 20) == pytest.approx(schedule.get_last_lr()[0])


def test_the_average_follows_the_written_decay() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = Average(network, 0.5)
    by_hand = 0.0
    for update in range(6):
        nn.init.constant_(network.weight, float(update + 1))
        average.update(network)
        decay = min(0.5, (1 + update) / (10 + update))
        by_hand = decay * by_hand + (1 - decay) * (update + 1)
    averaged = next(average.network.parameters())
    assert float(averaged) == pytest.approx(by_hand)
