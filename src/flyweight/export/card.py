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
_ELSEWHERE = ("data", "devices", "reject", "pretrained")  # of provenance, in sections of their own


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
        temperature: That logits are divided by before softmax.
        hashes: File inside the bundle to its SHA-256.
    """

    name: str
    classes: Sequence[str]
    preprocess: Mapping[str, Any]
    variants: Sequence[VariantFacts]
    split_rule: Mapping[str, Any]
    provenance: Mapping[str, Any]
    reject_threshold: float | None = None
    temperature: float = 1.0
    hashes: Mapping[str, str] = field(default_factory=dict)

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
        "## Accuracy\n\n" + _of_each(facts, lambda one: _accuracy(facts, one)) + f"\n\n{_calibration(facts)}",
        "## Counted cost\n\n" + _of_each(facts, _cost),
        *_devices(facts.provenance),
        "## Input\n\n" + _table(facts.preprocess),
        "## Data and split\n\n" + _table({**_data(facts.provenance), **facts.split_rule}),
        "## Where it comes from\n\n" + _table(_origin(facts)),
        "## Licence of weights\n\n" + _licence(facts.provenance),
        "## Limits\n\n" + _limits(facts),
        "## Classes\n\n" + _classes(facts.classes),
        *_hashes(facts.hashes),
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
        f"## Intended use\n\n{_intended(facts)}\n\n"
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


def _intended(facts: CardFacts) -> str:
    data = str(facts.provenance.get("data", {}).get("name", "")) if _has_data(facts) else ""
    like = f" like those of {data}" if data else " like those it was trained on"
    return (
        f"Tells which one of {len(facts.classes)} classes a whole picture{like} belongs to, on the device that took "
        "it. Not for: finding or counting objects in a picture, pictures of several classes at once, or decisions "
        "about people that nobody checks. What it does with pictures of none of its classes stands under Limits."
    )


def _accuracy(facts: CardFacts, variant: VariantFacts) -> str:
    accuracy = variant.accuracy
    if not accuracy:
        others = [one.name for one in facts.variants if one.accuracy]
        told = f" The accuracy of {' and '.join(others)} is not its own." if others else ""
        return (
            f"This file was not tested: no accuracy of it on the test part is recorded.{told} "
            f"`flyweight verify BUNDLE --variant {variant.name} --data PATH --record` tests it and writes that here."
        )
    numbers = {key: value for key, value in accuracy.items() if isinstance(value, (int, float, str))}
    return (
        "Of the shipped file on the test part (shares are 0–1; low and high are a Wilson 95 % interval).\n\n"
        + _table(numbers)
        + _per_class(accuracy.get("per_class", ()))
    )


def _per_class(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the classes, the worst first where there are more than are shown."""
    if not rows:
        return ""
    shown = list(rows)
    if len(rows) > _SHOWN_CLASSES:
        shown = sorted(rows, key=lambda row: 1.0 if row.get("recall") is None else row["recall"])[:_SHOWN_CLASSES]
    lines = [
        f"| {_cell(row['name'])} | {row['n']} | {_recall(row)} | {_share(row['precision'])} | {_share(row['f1'])} |"
        for row in shown
    ]
    rest = f"\n\nThe {len(shown)} worst of {len(rows)} classes; bundle.json has all." if len(shown) < len(rows) else ""
    head = "| class | n | recall [95 %] | precision | F1 |\n| --- | --- | --- | --- | --- |"
    return "\n\n" + "\n".join([head, *lines]) + rest


def _recall(row: Mapping[str, Any]) -> str:
    if row["recall"] is None:
        return "–"
    return f"{_share(row['recall'])} [{_share(row['recall_low'])}, {_share(row['recall_high'])}]"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _calibration(facts: CardFacts) -> str:
    return (
        f"Confidence is the softmax of logits divided by {facts.temperature:.4g}, a temperature that was fitted on "
        "validation images; ece is its expected calibration error where the file was tested."
    )


def _licence(provenance: Mapping[str, Any]) -> str:
    own = "What these weights themselves may be used for is for whoever publishes them to say."
    if "pretrained" not in provenance:
        return f"Not recorded whether training began with the weights of others. {own}"
    begun = provenance["pretrained"]
    if begun is None:
        return f"The recipe names no pretrained weights to begin with. {own}"
    rows = {key: begun[key] or "none stated" for key in ("name", "licence", "source", "data", "sha256") if key in begun}
    return f"Training began with the weights of others, whose terms go with them:\n\n{_table(rows)}\n\n{own}"


def _hashes(hashes: Mapping[str, str]) -> list[str]:
    if not hashes:
        return []
    note = "SHA-256. `SHA256SUMS` has that of this card too; they say that files belong together, not who made them."
    return ["\n\n".join(["## Hashes", note, _table({f"`{name}`": f"`{found}`" for name, found in hashes.items()})])]


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
    others = {key: value for key, value in facts.provenance.items() if key not in _ELSEWHERE}
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
            f"{one.parity.max_abs_error:.2g} in a logit; their top-1 agreement is {one.parity.top1_agreement:.2%}."
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
