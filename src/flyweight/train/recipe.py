"""Everything that decides one training run, as a YAML file. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flyweight.data.policy import AugmentPolicy
from flyweight.errors import RecipeError
from flyweight.files import write_text

Precision = Literal["fp32", "bf16"]
Init = Literal["default", "kaiming", "xavier", "orthogonal", "zero_gamma", "trunc_normal"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPart(_Part):
    """Which network. `args` go to its builder (width, dropout, ...).

    The name `from` stands for the network of the run that this one begins with (`flyweight train --from RUN`).

    Attributes:
        pretrained: Weights to begin with, by name or folder (`flyweight weights list`); the head, where its classes are
            others, starts afresh. None: from scratch.
        init: How weights begin from scratch (`train.initialize`); default: as the network's builder draws them.
    """

    name: str = "tiny_resnet8_16"
    args: dict[str, Any] = Field(default_factory=dict)
    pretrained: str | None = None
    init: Init = "default"

    @model_validator(mode="after")
    def _begins_one_way(self) -> ModelPart:
        if self.pretrained and self.init != "default":
            raise ValueError(f"init: {self.init} would be overwritten by the weights of pretrained: {self.pretrained}")
        return self


class DataPart(_Part):
    """From files to pixels.

    Attributes:
        image_size: Side in px; None: the native side of small images of one size, else 64.
        channels: 1, 3 or 4; None: what the images have.
        resize: crop (short side to image_size, centre), stretch or pad. The runtime does the same.
        shape_policy: fixed: every image is stored at image_size; ragged: stored with its own shape a little larger,
            so that random_resized_crop sees it; auto: ragged where random_resized_crop asks for it.
        val_fraction: Share of the training images kept for validation, by content hash.
        test_fraction: Share sealed as test part where the source has no official one.
        group: Column, or pattern with one group, naming what must stay on one side of the split.
        val_fold: Which slice of `val_fraction` validates, from 0: over all of them, K-fold cross-validation.
        split_seed: Salt of the split.
        train_fraction: Share of the training images that is used, equal over classes, by content hash: a smaller share
            lies inside a larger one. Validation and test stay whole.
    """

    image_size: int | None = Field(default=None, ge=8, le=1024)
    channels: Literal[1, 3, 4] | None = None
    resize: Literal["crop", "stretch", "pad"] = "crop"
    interpolation: Literal["bilinear", "bicubic", "box"] = "bilinear"
    shape_policy: Literal["auto", "fixed", "ragged"] = "auto"
    val_fraction: float = Field(default=0.1, gt=0.0, lt=0.9)
    test_fraction: float = Field(default=0.15, gt=0.0, lt=0.9)
    group: str | None = None
    val_fold: int = Field(default=0, ge=0)
    split_seed: int = 0
    train_fraction: float = Field(default=1.0, gt=0.0, le=1.0)


class OptimPart(_Part):
    """The optimizer, by its timm name: sgd (Nesterov), adamw, nadam, rmsprop, lion, muon, ...

    Attributes:
        layer_decay: Share of the rate of the block after it with which each block learns, the head with all of it: for
            fine-tuning. None: all the same.
    """

    name: str = "sgd"
    lr: float = Field(default=0.1, gt=0.0)
    weight_decay: float = Field(default=5e-4, ge=0.0)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    betas: tuple[float, float] | None = None
    eps: float | None = Field(default=None, gt=0.0)
    layer_decay: float | None = Field(default=None, gt=0.0, le=1.0)


class SchedulePart(_Part):
    """The learning rate as a function of the share of steps done.

    Attributes:
        warmup_fraction: Share of the steps during which the rate rises linearly from zero.
        final_fraction: Last learning rate as a share of the peak (cosine, onecycle).
        milestones: Shares of the run after which the rate is multiplied by `factor` (step).
    """

    name: Literal["cosine", "onecycle", "step", "constant"] = "cosine"
    warmup_fraction: Fraction = 0.05
    final_fraction: Fraction = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = Field(default=0.1, gt=0.0, lt=1.0)


class MergePart(_Part):
    """How a dual network becomes one.

    Attributes:
        hidden: Width of the dense layer between the two outputs and the classes.
        outputs: What is concatenated: the sub-models' logits, or their probabilities.
    """

    hidden: int = Field(default=32, ge=1)
    outputs: Literal["logits", "probs"] = "logits"


class DistillPart(_Part):
    """A teacher whose answers on the same augmented images are learned beside the labels.

    Source: Hinton et al. 2015 (arXiv:1503.02531); teacher and student see the same view: Beyer et al. 2021
    (arXiv:2106.05237).

    Attributes:
        teacher: Folder of a finished run with the same classes, channels and image_size.
        others: Further teachers; what is learned is the mean of their probabilities.
        weight: Share of the teacher's answers in the loss; the rest is of the labels.
        temperature: By which both logits are divided before they are compared.
        features: Weight of the similarity of features before the last layer, beside the rest; 0: none.
        cached: The teacher's answers are kept on disk and read when the same images come again: the same recipe and
            seed with another student.
    """

    teacher: str
    others: tuple[str, ...] = ()
    weight: float = Field(default=0.9, gt=0.0, le=1.0)
    temperature: float = Field(default=4.0, gt=0.0)
    features: float = Field(default=0.0, ge=0.0)
    cached: bool = False

    @model_validator(mode="after")
    def _features_are_computed(self) -> DistillPart:
        if self.features and self.cached:
            raise ValueError("cached: the teacher's features are not kept on disk; leave out cached or features")
        return self

    @property
    def teachers(self) -> tuple[str, ...]:
        """All of them."""
        return (self.teacher, *self.others)


class StagePart(_Part):
    """One stage of a run that has several. What is None is the recipe's.

    Attributes:
        network: single: the model; dual: two of it side by side, with an output and a loss each; merged: both outputs
            into a new head. A dual stage may be followed by dual and merged ones.
        views: What the two sub-models see: split: the first `augment`, the second `second_view`; same: both `augment`.
        quantize: int8: the network is folded and learns on the levels of its int8 file (`models.quantize`); the
            stages after it stay so.
        probe: The last dense layer alone is fitted to convergence on features that are computed once, without
            augmentation (`train.linear_probe`); epochs, optim, schedule and augment play no part.
        unfreeze: What learns: all; top_down: the last layer, then one release more at a time, down to the first;
            a number: the last so many layers; a name: that layer or block and all that run after it.
        releases: In how many equal releases top_down goes; None: layer by layer.
        epochs: Of the stage; with top_down of each release.
        patience: Epochs without a better val_accuracy after which the stage ends and its best weights are taken.
    """

    name: str = ""
    network: Literal["single", "dual", "merged"] = "single"
    views: Literal["same", "split"] = "same"
    quantize: Literal["int8"] | None = None
    probe: bool = False
    unfreeze: Literal["all", "top_down"] | Annotated[int, Field(ge=1)] | str = "all"
    releases: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=5, ge=1)
    optim: OptimPart | None = None
    schedule: SchedulePart | None = None
    augment: AugmentPolicy | None = None
    patience: int | None = Field(default=None, ge=1)
    epoch_images: int | None = Field(default=None, ge=2)


class PlannedStage(_Part):
    """One stage as it will run: `stage` is its place in the recipe, `layers` learn (the last to run; None: all)."""

    stage: int
    name: str
    epochs: int
    layers: int | None = None


class Resolved(_Part):
    """What probing decided before step 1; a resumed run takes it as it stands and never probes again.

    Attributes:
        micro_batch: Images per forward pass; batch_size / micro_batch passes make one step.
        resident: True where the decoded pixels are held in the memory of the device.
        class_weights: Loss weight of each class, mean 1; None: all the same.
        sampling: True where classes are drawn equally often.
        probe: Training images per second of each combination tried.
        stages: What the recipe's stages came to with this network.
    """

    device: str
    precision: Precision
    channels_last: bool
    compile: bool
    threads: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    resident: bool
    image_size: int
    channels: int
    shape_policy: Literal["fixed", "ragged"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_weights: tuple[float, ...] | None = None
    sampling: bool = False
    probe: dict[str, float] = Field(default_factory=dict)
    stages: tuple[PlannedStage, ...] = ()


class Recipe(_Part):
    """One training run. Every field has a default; the shipped recipes state the result they give.

    Attributes:
        epochs: Passes over the training images; of a recipe with stages, the stages say.
        epoch_images: Training images in an epoch, drawn anew for each; None: all.
        batch_size: Images per optimizer step, whatever the memory allows at once.
        label_smoothing: Share of each target spread over all classes.
        clip_grad_norm: Largest norm of the gradient; None: not clipped.
        ema_decay: Decay of the running average of weights that is validated and kept; None: none.
        balance: What to do about unequal classes: none, loss (class weights), sampling, or auto: loss where the
            largest class has over five times the images of the smallest.
        select: Which epoch's weights are kept: the last, or the best on validation.
        patience: Epochs without a better val_accuracy after which training ends and the best weights are taken.
        stages: Stages of training in turn, each with its own network form, layers, length and rate; none: one stage,
            the recipe itself.
        second_view: Random changes of the images that the second of two sub-models sees.
        merge: How the two become one.
        distill: A teacher to learn from; none: the labels alone.
        precision, channels_last, compile, threads: auto: chosen by a short probe, then written down.
        expected: Measured results of this recipe, for people; not read by the program.
    """

    name: str = "custom"
    description: str = ""
    expected: dict[str, str] = Field(default_factory=dict)
    model: ModelPart = ModelPart()
    data: DataPart = DataPart()
    augment: AugmentPolicy = AugmentPolicy()
    optim: OptimPart = OptimPart()
    schedule: SchedulePart = SchedulePart()
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=256, ge=2)
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    clip_grad_norm: float | None = Field(default=None, gt=0.0)
    ema_decay: float | None = Field(default=None, gt=0.0, lt=1.0)
    balance: Literal["auto", "none", "loss", "sampling"] = "auto"
    select: Literal["last", "best"] = "last"
    patience: int | None = Field(default=None, ge=1)
    epoch_images: int | None = Field(default=None, ge=2)
    stages: tuple[StagePart, ...] = ()
    second_view: AugmentPolicy | None = None
    merge: MergePart = MergePart()
    distill: DistillPart | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    precision: Literal["auto"] | Precision = "auto"
    channels_last: Literal["auto"] | bool = "auto"
    compile: Literal["auto"] | bool = "auto"
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    resolved: Resolved | None = None

    def with_settings(self, settings: Sequence[str]) -> Recipe:
        """Return the recipe changed by `key.path=value` settings, values in YAML.

        Raises:
            RecipeError: A setting is not of that form, or the changed recipe is not valid.
        """
        content = self.model_dump(mode="json")
        for setting in settings:
            _apply(content, setting)
        return validated(content, where="--set " + " --set ".join(settings))

    def save(self, path: Path) -> None:
        """Write the recipe as YAML, whole or not at all."""
        content = self.model_dump(mode="json", exclude_none=True)
        write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    @model_validator(mode="after")
    def _stages_can_follow_each_other(self) -> Recipe:
        forms = [stage.network for stage in self.stages]
        order = {"dual": 0, "merged": 1}
        if "single" in forms and set(forms) != {"single"}:
            raise ValueError(f"stages: single cannot be mixed with dual and merged (found {', '.join(forms)})")
        if forms != sorted(forms, key=lambda form: order.get(form, 0)):
            raise ValueError(f"stages: a merged network cannot be taken apart again (found {', '.join(forms)})")
        quantized = [stage.quantize is not None for stage in self.stages]
        if quantized != sorted(quantized):
            raise ValueError("stages: a stage after one with quantize: int8 must have it too")
        if any(stage.probe and (stage.quantize or stage.network != "single") for stage in self.stages):
            raise ValueError("stages: probe fits the head of a single float network; leave out quantize and network")
        if self.distill and "dual" in forms:
            raise ValueError("distill: a dual stage has two outputs; distill a single network or a merged one alone")
        if self.second_view is None and any(stage.views == "split" for stage in self.stages):
            raise ValueError("stages: views: split needs second_view, the changes that the second sub-model sees")
        return self

    @property
    def total_epochs(self) -> int:
        """Epochs of the whole run; of a resolved recipe with stages, of all of them (some may end early)."""
        planned = self.resolved.stages if self.resolved else ()
        return sum(stage.epochs for stage in planned) or sum(s.epochs for s in self.stages) or self.epochs

    def settled(self) -> Resolved:
        """Return what probing decided; only for a recipe that has been resolved."""
        assert self.resolved is not None, "the recipe has not been resolved"
        return self.resolved


def load_recipe(name: str | Path) -> Recipe:
    """Return a shipped recipe by name, or one from a YAML file.

    Raises:
        RecipeError: No such recipe or file, not YAML, unknown keys or impossible values (all reported together).
    """
    path = Path(name)
    shipped = shipped_recipes()
    if str(name) in shipped:
        text, where = shipped[str(name)], f"shipped recipe {str(name)!r}"
    elif path.is_file():
        text, where = _read(path), str(path)
    else:
        close = difflib.get_close_matches(str(name), shipped, n=3, cutoff=0.4) or sorted(shipped)
        raise RecipeError(
            f"there is no recipe or file {str(name)!r}",
            do=f"name a YAML file or one of: {', '.join(close)} (all: flyweight recipe list)",
        )
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise RecipeError(f"{where}{line} is not YAML: {problem}", do="mend that line") from error
    if not isinstance(content, dict):
        raise RecipeError(
            f"{where} holds {type(content).__name__} {str(content)[:60]!r}, not a mapping of recipe keys",
            do="start from a shipped one: flyweight recipe show NAME > my.yaml",
        )
    return validated(content, where=where)


def shipped_recipes() -> dict[str, str]:
    """Return the YAML text of every shipped recipe, by name."""
    folder = resources.files("flyweight.train") / "recipes"
    files = [entry for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    return {entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8") for entry in sorted(files, key=str)}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as text: {error}", do="give a UTF-8 YAML file") from error


def _apply(content: dict[str, Any], setting: str) -> None:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {setting!r} is not of the form key=value", do="write e.g. --set optim.lr=0.1")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {setting!r}: the value {value!r} is not YAML", do="quote it") from error
    target: Any = content
    *parents, last = key.split(".")
    for parent in parents:
        place = _place(target, parent, setting)
        if not isinstance(target, list) and not isinstance(target.get(place), dict | list):
            target[place] = {}
        target = target[place]
    target[_place(target, last, setting)] = parsed


def _place(target: dict[str, Any] | list[Any], key: str, setting: str) -> Any:
    """Return the key, or the index where `target` is a list."""
    if not isinstance(target, list):
        return key
    if not key.isdecimal() or int(key) >= len(target):
        raise RecipeError(
            f"--set {setting!r}: {key!r} is no place in a list of {len(target)}",
            do=f"give a number from 0 to {len(target) - 1}" if target else "set the list as a whole, in a recipe file",
        )
    return int(key)


def validated(content: Mapping[str, Any], *, where: str) -> Recipe:
    """Return the recipe that a mapping says; `where` names it in the error.

    Raises:
        RecipeError: Unknown keys or impossible values, all of them.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = list(_problems(error))
        raise RecipeError(
            f"{where}: {len(problems)} problem{'s' * (len(problems) > 1)}: " + "; ".join(problems),
            do="correct " + ", ".join(sorted({problem.split(" ", 1)[0] for problem in problems})),
        ) from error


def _problems(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"] if part not in {"literal['auto']", "constrained-int"})
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(item["loc"][-1]), _keys(item["loc"][:-1]), n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            yield f"{path} is not a recipe key (value {item['input']!r}){hint}"
        else:
            yield f"{path or 'recipe'} {item['msg'].lower()} (value {str(item['input'])[:80]!r})"


def _keys(path: Sequence[int | str]) -> list[str]:
    part: type[BaseModel] = Recipe
    for name in path:
        if str(name) not in part.model_fields:
            break
        annotation = part.model_fields[str(name)].annotation
        options = [annotation, *get_args(annotation)]
        part = next((kind for kind in options if isinstance(kind, type) and issubclass(kind, BaseModel)), part)
    return list(part.model_fields)
