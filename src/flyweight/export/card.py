"""The model card: what the network is, what it was trained on, how well it does, and how each number was got."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from flyweight import __version__
from flyweight.errors import ModelError
from flyweight.export.parity import Parity
from flyweight.models.architecture import Architecture
from flyweight.models.cost import Cost
from flyweight.models.zoo import find

_SHOWN_CLASSES = 50


@dataclass(frozen=True)
class VariantFacts:
    """One model file of a bundle.

    Attributes:
        size_bytes: Of the model file.
        accuracy: Metric to value, None when the test part has not been opened.
        source: The variant it was converted from, None for one that was exported from a run.
        conversion: How it was converted.
    """

    name: str
    architecture: Architecture
    cost: Cost
    size_bytes: int
    parity: Parity
    accuracy: Mapping[str, Any] | None
    source: str | None = None
    conversion: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from.

    Attributes:
        preprocess: What `Preprocess.to_json()` gives.
        variants: The model files, the default one first.
        reject_threshold: Confidence below which there is no answer; None: there always is one.
    """

    name: str
    classes: Sequence[str]
    preprocess: Mapping[str, Any]
    variants: Sequence[VariantFacts]
    split_rule: Mapping[str, Any]
    provenance: Mapping[str, Any]
    reject_threshold: float | None = None

    @property
    def default(self) -> VariantFacts:
        """The variant that is used when none is named."""
        return self.variants[0]


def card(facts: CardFacts) -> str:
    """Return the card as Markdown with the YAML front matter that model hubs read."""
    sections = (
        _front_matter(facts),
        f"# {facts.name}\n\n{_summary(facts)}",
        _use(facts),
        "## Accuracy\n\n" + _of_each(facts, lambda one: _accuracy(one.accuracy)),
        "## Counted cost\n\n" + _of_each(facts, _cost),
        *_devices(facts.provenance),
        "## Input\n\n" + _table(facts.preprocess),
        "## Data and split\n\n" + _table({**_data(facts.provenance), **facts.split_rule}),
        "## Where it comes from\n\n" + _table(_origin(facts)),
        "## Limits\n\n" + _limits(facts),
        "## Classes\n\n" + _classes(facts.classes),
    )
    return "\n\n".join(sections) + "\n"


def _front_matter(facts: CardFacts) -> str:
    front: dict[str, Any] = {
        "library_name": "flyweight",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "onnx", facts.default.architecture.name],
    }
    top1 = _first(facts.default.accuracy, "accuracy", "top1")
    if top1 is not None:
        data = str(facts.provenance.get("data", {}).get("name", "test part")) if _has_data(facts) else "test part"
        front["model-index"] = [
            {
                "name": facts.name,
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": data, "type": data},
                        "metrics": [{"type": "accuracy", "value": float(top1)}],
                    }
                ],
            }
        ]
    return "---\n" + yaml.safe_dump(front, sort_keys=False, allow_unicode=True) + "---"


def _has_data(facts: CardFacts) -> bool:
    return isinstance(facts.provenance.get("data"), Mapping)


def _summary(facts: CardFacts) -> str:
    chosen = facts.default
    a = chosen.architecture
    others = f" Variants: {', '.join(one.name for one in facts.variants)}." if len(facts.variants) > 1 else ""
    return (
        f"An image classifier of {len(facts.classes)} classes: `{a.name}` for {a.image_size} × {a.image_size} px, "
        f"{a.in_chans} {'channel' if a.in_chans == 1 else 'channels'}, {_count(chosen.cost.params)} parameters, "
        f"{chosen.size_bytes / 1000:.0f} kB.{others}"
    )


def _use(facts: CardFacts) -> str:
    return (
        "## Use\n\n```sh\npip install flyweight\nflyweight predict BUNDLE photo.jpg\n"
        "flyweight verify BUNDLE --data PATH     # every number below, again, from the shipped bytes\n"
        "flyweight measure BUNDLE --threads 1    # latency and memory on this machine\n```"
    )


def _of_each(facts: CardFacts, text: Callable[[VariantFacts], str]) -> str:
    """Return the text about each variant, under its name where there are several."""
    if len(facts.variants) == 1:
        return text(facts.default)
    names = {one.name: f"{one.name}, the default" if one is facts.default else one.name for one in facts.variants}
    return "\n\n".join(f"### {names[one.name]}\n\n{text(one)}" for one in facts.variants)


def _accuracy(accuracy: Mapping[str, Any] | None) -> str:
    if not accuracy:
        return "Not measured: the test part has not been opened for this bundle."
    numbers = {key: value for key, value in accuracy.items() if isinstance(value, (int, float, str))}
    return (
        "Of the shipped file on the test part (shares are 0–1; low and high are a Wilson 95 % interval).\n\n"
        + _table(numbers)
    )


def _cost(facts: VariantFacts) -> str:
    rows = {
        "parameters": f"{facts.cost.params:,}",
        "MACs of one image (FLOPs = 2 × MACs)": f"{facts.cost.macs:,}",
        "peak activation bytes": f"{facts.cost.peak_activation_bytes:,}",
        "model file bytes": f"{facts.size_bytes:,}",
    }
    note = f"Counted from the shipped graph, not measured. Activations: {facts.cost.planner}."
    missing = f" Operators not counted: {', '.join(facts.cost.unsupported)}." if facts.cost.unsupported else ""
    return f"{_table(rows)}\n\n{note}{missing}"


def _devices(provenance: Mapping[str, Any]) -> list[str]:
    """Return what devices measured, a table each; nothing where none did."""
    texts = []
    for name, entry in provenance.get("devices", {}).items():
        rows = {**entry["measured"], **_conditions(entry["conditions"])}
        texts.append(f"### {name}\n\n{_table(rows)}")
    if not texts:
        return []
    note = "Times in ms: the quantile and its 95 % interval, batch 1, model only, several fresh processes, untrimmed."
    return ["\n\n".join(["## Measured devices", note, *texts])]


def _conditions(conditions: Mapping[str, Any]) -> dict[str, Any]:
    known = ("model", "cpu", "cores", "os", "browser", "versions", "before", "after", "date")
    return {key: conditions[key] for key in known if conditions.get(key)}


def _data(provenance: Mapping[str, Any]) -> dict[str, Any]:
    data = provenance.get("data")
    return dict(data) if isinstance(data, Mapping) else ({"data": data} if data else {})


def _origin(facts: CardFacts) -> dict[str, Any]:
    rows: dict[str, Any] = {"flyweight": __version__}
    try:
        entry = find(facts.default.architecture.name)
    except ModelError:
        rows["network"] = facts.default.architecture.name
    else:
        rows["network"] = f"{entry.family}, built by {entry.library} ({entry.licence}), {entry.paper}"
    others = {key: value for key, value in facts.provenance.items() if key not in ("data", "devices", "reject")}
    return {**rows, **others}


def _rejects(facts: CardFacts) -> str:
    if facts.reject_threshold is None:
        return (
            f"- It always answers with one of its {len(facts.classes)} classes; `flyweight reject` sets a confidence"
            " below which it does not."
        )
    told = f"- Below a confidence of {facts.reject_threshold:.3f} it gives no answer"
    measured = facts.provenance.get("reject", {"thresholds": ()})
    for place, one in enumerate(measured["thresholds"]):
        if one["confidence"] == facts.reject_threshold:
            right = f", {_percent(one['accuracy'])} of these rightly" if one["accuracy"] else ""
            told += f". It answers {_percent(one['answered'])} of {one['answered']['n']:,} images of its classes{right}"
            told += f" ({measured['part']}, the {measured['variant']} file)"
            others = [
                f"{_percent(other['answered'][place])} of {other['n']:,} of {other['name']}"
                for other in measured["unlike"]
            ]
            told += f". Of other images, which it should not answer, it answers {', '.join(others)}" if others else ""
    return f"{told}."


def _percent(share: Mapping[str, Any]) -> str:
    return f"{share['value']:.1%} [{share['low']:.1%}, {share['high']:.1%}]"


def _limits(facts: CardFacts) -> str:
    return (
        f"{_rejects(facts)}\n"
        "- It was tested on images like those it was trained on; other cameras, light or framing need their own test.\n"
        + "\n".join(
            f"- On {one.parity.n} images the {one.name} file and "
            f"{f'the {one.source} file' if one.source else 'its trained network'} differ by at most "
            f"{one.parity.max_abs_error:.2g} in a logit, with the same first class on {one.parity.top1_agreement:.2%}."
            f"{_converted(one)}"
            for one in facts.variants
        )
    )


def _converted(facts: VariantFacts) -> str:
    """Return how a converted file was made, and what of it is computed in float all the same."""
    made = facts.conversion
    if not made:
        return ""
    floats = made.get("in_float", [])
    kept = f" Of {made['layers']} layers, {len(floats)} are computed in float: {', '.join(floats)}." if floats else ""
    notes = "".join(f" {note}." for note in made.get("notes", []))
    how = f" It was written by {made['tool']}; {made['carries']}." if "tool" in made else ""
    return f"{how}{kept}{notes}"


def _classes(classes: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in classes[:_SHOWN_CLASSES])
    rest = len(classes) - _SHOWN_CLASSES
    return f"In the order of the logits: {shown}" + (f" and {rest} more (bundle.json lists all)." if rest > 0 else ".")


def _table(rows: Mapping[str, Any]) -> str:
    if not rows:
        return "Not recorded."
    lines = [f"| {_cell(key)} | {_cell(_text(value))} |" for key, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(inner) for inner in value)
    return str(value)


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "\\|").split())


def _count(number: int) -> str:
    return f"{number:,}" if number < 1_000_000 else f"{number / 1e6:.2f} million"


def _first(values: Mapping[str, Any] | None, *keys: str) -> Any:
    return next((values[key] for key in keys if values and key in values), None)
