"""A study as data: data sets, arms, scales and questions, read from `studies/NAME/study.yaml`. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from flyweight.errors import RecipeError
from flyweight.train.recipe import Recipe, validated

COST = "$cost"  # epochs of an arm that stops where its training has cost as much as another arm's


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Published(_Part):
    """What a paper says: shares in 0..1, counted parameters."""

    accuracy: float
    params: int


class PublishedArm(_Part):
    """What a paper says of one arm, on images or at a size that need not be ours: share in 0..1, and its table."""

    accuracy: float
    where: str


class Subset(_Part):
    """A part of a data set: its first classes, and so many training images of each, by content hash (nested).

    Attributes:
        fraction: The share of the training images, equally many of each class as far as they reach.
    """

    classes: int | None = Field(default=None, ge=2)
    per_class: int | None = Field(default=None, ge=2)
    fraction: float | None = Field(default=None, gt=0.0, le=1.0)

    @property
    def words(self) -> str:
        """Return it for people; "" for the whole."""
        parts = [f"first {self.classes} classes" if self.classes else ""]
        parts.append(f"{self.per_class} images a class" if self.per_class else "")
        parts.append(f"{100 * self.fraction:g} % of the images" if self.fraction else "")
        return ", ".join(part for part in parts if part)


class StudyData(_Part):
    """A data set of the study. Further keys are values that recipes name with `$`.

    Attributes:
        source: What to load; None: the data set of this name, or `of` that name, below the folder of the data sets.
        subset: What part of it is used at every scale that does not say another.
        quarantine: File that names images to leave out, one a line.
        seen_by: Data that these images are part of, or are cut from, as weights name what they were trained on.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    title: str
    data: dict[str, Any]
    source: str | None = None
    of: str | None = None
    subset: Subset | None = None
    quarantine: str | None = None
    seen_by: tuple[str, ...] = ()
    published: Published | None = None


class Scale(_Part):
    """How large the study is run. Further keys are values that recipes name with `$`.

    Attributes:
        seeds: Runs of each arm, seeds 0, 1, ...
        seeds_of: Runs of the arms of that name, or of all arms of that group, where they are others (fewer for what is
            slow to train); at most `seeds`.
        datasets: Those that are run; None: all.
        arms: Those that are run; None: all.
        ranked: Those that are compared with each other; None: the study's.
        limit: Training images in an epoch; None: all.
        subsets: What part of a data set is used, by name; the others whole.
        quick: True where files are timed by few short processes, for a first look.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    seeds: int = Field(ge=1)
    seeds_of: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    datasets: tuple[str, ...] | None = None
    arms: tuple[str, ...] | None = None
    ranked: tuple[str, ...] | None = None
    limit: int | None = None
    subsets: dict[str, Subset] = Field(default_factory=dict)
    quick: bool = False

    def seeds_for(self, name: str, arm: Arm) -> int:
        """Return the runs of an arm: its own number, else its group's, else the scale's."""
        return min(self.seeds, self.seeds_of.get(name, self.seeds_of.get(arm.group, self.seeds)))


class Tune(_Part):
    """A small search before an arm is trained, the same for each: short runs, judged on validation.

    Attributes:
        tries: What the arm's recipe is changed by in each run; the first is the recipe as it stands, `{}`.
        epochs: Of each run.
    """

    tries: tuple[dict[str, Any], ...] = Field(min_length=2)
    epochs: int = Field(ge=1)


class Arm(_Part):
    """One way of training.

    Attributes:
        from_arm: The arm whose weights (of the same seed) it starts from, and whose cost it includes.
        teacher: The arm whose network (of the same seed) it learns from; its cost is not counted.
        cost: The arm whose training cost its own is made equal to, by the length of the stage of `$cost` epochs.
        tune: A search of the arm's own before it; None: trained as it stands.
        group: What it is an arm of, such as the network: arms of equal group are drawn side by side.
        recipe: What `base` is changed by.
        published: What is said of it elsewhere, shown beside what it gives here: on any data set, or by data set.
    """

    title: str
    from_arm: str | None = Field(default=None, alias="from")
    teacher: str | None = None
    cost: str | None = None
    tune: Tune | None = None
    group: str = ""
    recipe: dict[str, Any]
    published: PublishedArm | dict[str, PublishedArm] | None = None

    def published_on(self, dataset: str) -> PublishedArm | None:
        """Return what is said of it on a data set; None where nothing is."""
        return self.published.get(dataset) if isinstance(self.published, dict) else self.published

    @property
    def needs(self) -> tuple[str, ...]:
        """Arms of the same data set and seed that must be finished first."""
        return tuple(name for name in (self.from_arm, self.teacher, self.cost) if name)


Arms = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]


class Question(_Part):
    """A comparison that the report answers: is `first` better than `second`? `short` is `ask` in two words.

    Attributes:
        first, second: An arm, or several whose mean is meant: the main effect of a factor is over all that have it.
    """

    ask: str
    short: str
    first: Arms = Field(min_length=1)
    second: Arms = Field(min_length=1)

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms that it takes."""
        return (*self.first, *self.second)


class Study(_Part):
    """A study, ready to be run: one that was published, or a search of our own.

    Attributes:
        paper: Where it was published; "" for our own.
        part: What arms are compared on: the official test part, where nothing is chosen by the outcome, or the
            validation images (the same for every seed), where something is.
        reference: The arm that published numbers and costs are compared with.
        compare: True for a comparison of networks: every pair of the arms in `ranked` is tested, files are timed and
            weighed, and trade-offs drawn.
        stability: True for a map over learning rate × batch size, whose arms differ in these and the optimizer alone.
        ranked: Arms that are compared with each other; (): all.
        published_on: What the published numbers of arms were measured on, where that is not what is run here.
    """

    name: str
    title: str
    paper: str = ""
    part: Literal["test", "val"] = "test"
    reference: str = "as_published"
    compare: bool = False
    stability: bool = False
    ranked: tuple[str, ...] = ()
    published_on: str = ""
    about: str
    differs: tuple[str, ...] = ()
    scales: dict[str, Scale]
    datasets: dict[str, StudyData]
    base: dict[str, Any]
    arms: dict[str, Arm]
    questions: tuple[Question, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Study:
        named = [name for arm in self.arms.values() for name in arm.needs]
        named += [self.reference, *self.ranked]
        named += [name for question in self.questions for name in question.arms]
        named += [name for scale in self.scales.values() for name in (*(scale.arms or ()), *(scale.ranked or ()))]
        unknown = sorted(set(named) - set(self.arms))
        if unknown:
            raise ValueError(f"there is no arm {', '.join(unknown)}")
        self._check_seeds()
        staged = [name for name, arm in self.arms.items() if arm.tune and {**self.base, **arm.recipe}.get("stages")]
        if staged:
            raise ValueError(f"arm {', '.join(staged)}: tune is for a recipe without stages")
        return self

    def _check_seeds(self) -> None:
        known = {*self.arms, *(arm.group for arm in self.arms.values())}
        for label, scale in self.scales.items():
            unknown = sorted(set(scale.seeds_of) - known)
            if unknown:
                raise ValueError(f"scale {label}, seeds_of: there is no arm or group {', '.join(unknown)}")
            for name, arm in self.arms.items():
                runs = scale.seeds_for(name, arm)
                short = [need for need in arm.needs if scale.seeds_for(need, self.arms[need]) < runs]
                if short:
                    raise ValueError(
                        f"scale {label}: {name} has {runs} seeds, more than {', '.join(short)}, which it needs"
                    )


@dataclass(frozen=True, order=True)
class Trial:
    """One arm on one data set with one seed."""

    seed: int
    dataset: str
    arm: str

    @property
    def name(self) -> str:
        """Path of its folder below the study's."""
        return f"{self.dataset}/{self.arm}/seed{self.seed}"


def load_study(name: str) -> Study:
    """Return a shipped study.

    Raises:
        RecipeError: There is none of that name.
    """
    folder = resources.files("flyweight.studies")
    names = sorted(entry.name for entry in folder.iterdir() if (entry / "study.yaml").is_file())
    check_name("study", name, names)
    content = yaml.safe_load((folder / name / "study.yaml").read_text("utf-8"))
    content.pop("stage2", None)
    return Study.model_validate(content)


def plan_study(
    name: str, scale: str, *, seeds: int | None = None, datasets: Iterable[str] = (), arms: Iterable[str] = ()
) -> tuple[Study, Scale, list[Trial]]:
    """Return a shipped study, how much of it is run at a scale, and its trials.

    Args:
        seeds: Runs of each arm; None: the scale's.
        datasets: Only these; (): the scale's.
        arms: Only these, and those they need; (): the scale's.

    Raises:
        RecipeError: There is no such study, scale, data set or arm, or there are fewer folds than seeds.
    """
    study = load_study(name)
    check_name("scale", scale, study.scales)
    size = study.scales[scale]
    study = study if size.ranked is None else study.model_copy(update={"ranked": size.ranked})
    size = size.model_copy(update={"seeds": seeds, "seeds_of": {}}) if seeds else size
    folds = round(1 / study.base["data"]["val_fraction"])
    if study.part == "test" and size.seeds > folds:
        raise RecipeError(f"--seeds {size.seeds}, but there are {folds} folds", do=f"choose at most {folds}")
    return study, size, trials(study, size, datasets=datasets, arms=arms)


def check_name(what: str, name: str, known: Iterable[str]) -> None:
    """Raise RecipeError when `name` is not among the known ones."""
    known = list(known)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
        raise RecipeError(f"there is no {what} {name!r}", do=f"choose {', '.join(close)}")


def title_of(study: Study, scale: Scale, dataset: str) -> str:
    """Return a data set's title, with the part of it that the scale uses where the title does not say it."""
    title, part = study.datasets[dataset].title, scale.subsets.get(dataset)
    return title if part is None or not part.words or part.words in title else f"{title} ({part.words})"


def trials(study: Study, scale: Scale, *, datasets: Iterable[str] = (), arms: Iterable[str] = ()) -> list[Trial]:
    """Return the trials of a scale in the order in which they run: seed by seed, what an arm needs before it.

    Raises:
        RecipeError: No such data set or arm.
    """
    datasets, arms = tuple(datasets), tuple(arms)
    for name in datasets:
        check_name("data set", name, study.datasets)
    for name in arms:
        check_name("arm", name, study.arms)
    wanted = _with_needs(study, arms or scale.arms or tuple(study.arms))
    chosen = datasets or scale.datasets or tuple(study.datasets)
    return [
        Trial(seed, dataset, arm)
        for seed in range(scale.seeds)
        for dataset in chosen
        for arm in wanted
        if seed < scale.seeds_for(arm, study.arms[arm])
    ]


def recipe_of(study: Study, scale: Scale, trial: Trial) -> Recipe:
    """Return the recipe of a trial; stages of `$cost` epochs have 1 until their length is known.

    Raises:
        RecipeError: The study's data does not make a recipe.
    """
    dataset = study.datasets[trial.dataset]
    values = {**(scale.model_extra or {}), **(dataset.model_extra or {}), COST[1:]: 1}
    base, own = (_filled(part, values) for part in (study.base, study.arms[trial.arm].recipe))
    content = merged(base, {"data": dataset.data}, own)
    content["data"]["val_fold"] = trial.seed if study.part == "test" else 0
    content |= {"name": f"{study.name}/{trial.arm}", "seed": trial.seed}
    if scale.limit and content.get("stages"):
        content["stages"] = [{"epoch_images": scale.limit, **stage} for stage in content["stages"]]
    elif scale.limit:
        content["epoch_images"] = scale.limit
    return validated(content, where=f"study {study.name}, arm {trial.arm}")


def tries_of(study: Study, scale: Scale, trial: Trial, recipe: Recipe) -> list[Recipe]:
    """Return the short runs of an arm's own search: its recipe changed by each of its tries; none without a search.

    Raises:
        RecipeError: A try does not make a recipe.
    """
    tune = study.arms[trial.arm].tune
    if tune is None:
        return []
    values = {**(scale.model_extra or {}), **(study.datasets[trial.dataset].model_extra or {})}
    where = f"study {study.name}, arm {trial.arm}, tries"
    plain = recipe.model_dump(mode="json", exclude_none=True)
    return [validated(merged(plain, _filled(change, values)), where=where) for change in tune.tries]


def _with_needs(study: Study, arms: tuple[str, ...]) -> list[str]:
    wanted: dict[str, None] = {}

    def add(name: str) -> None:
        for needed in study.arms[name].needs:
            add(needed)
        wanted.setdefault(name)

    for name in arms:
        add(name)
    return list(wanted)


def _filled(content: Any, values: Mapping[str, Any]) -> Any:
    """Replace every string "$name" by the value of that name."""
    if isinstance(content, str) and content.startswith("$"):
        check_name("value", content[1:], values)
        return _filled(values[content[1:]], {key: values[key] for key in values if key != content[1:]})
    if isinstance(content, dict):
        return {key: _filled(value, values) for key, value in content.items()}
    if isinstance(content, list):
        return [_filled(value, values) for value in content]
    return content


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mappings laid over each other, the later on top, mappings within them likewise."""
    found: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
            found[key] = merged(found[key], value) if both else value
    return found
