"""Tables of results as Markdown, for the pages of docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def bundles(details: dict[str, Any]) -> str:
    """Return the Markdown table of bundles: means over seeds, and what ships of it."""
    lines = [
        "| bundle | variant | mean over seeds | shipped seed | int8 − float | parameters | file | p50, 1 thread |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in details.items():
        for variant in row.get("shipped", ()):
            values = [100 * seed[variant]["accuracy"] for seed in row["seeds"]]
            changes = [seed["int8_minus_fp32"] for seed in row["seeds"] if variant == "int8"]
            worst = max(changes, key=lambda change: abs(change["value"]), default=None)
            shown = (
                ""
                if worst is None
                else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * worst[key] for key in ("value", "low", "high")))
            )
            cost = row["shipped"][variant]
            p50 = cost["latency"]["p50"]
            mean = f"{sum(values) / len(values):.2f} % ({', '.join(f'{value:.2f}' for value in values)})"
            lines.append(
                f"| `{name}` | {variant} | {mean} | {100 * cost['accuracy']:.2f} % | {shown} | {cost['params']:,} | "
                f"{cost['size_bytes']:,} B | {p50['ms']:.4f} ms [{p50['low_ms']:.4f}, {p50['high_ms']:.4f}] |"
            )
    return "\n".join(lines)


def batches(details: Mapping[str, Any]) -> str:
    """Return a table for each backend and number of threads: p50 of a whole batch and images per second by batch.

    It has the networks that have a curve; the A/A arms have none.
    """
    groups = dict.fromkeys((curve["backend"], curve["threads"]) for curve in details["curves"])
    return "\n\n".join(_batches(details, *group) for group in groups)


def _batches(details: Mapping[str, Any], backend: str, threads: int) -> str:
    curves, cells = (
        [one for one in details[key] if (one["backend"], one["threads"]) == (backend, threads)]
        for key in ("curves", "cells")
    )
    found = {(cell["model"], cell["batch"]): cell for cell in cells}
    sizes = sorted({cell["batch"] for cell in cells})
    lines = [
        f"**{backend}, {threads} thread{'s' if threads > 1 else ''}**",
        "",
        f"| network | parameters | M MACs | {' | '.join(map(str, sizes))} | knee |",
        f"|{' --- |' * (len(sizes) + 4)}",
    ]
    for curve in curves:
        model, knee = curve["model"], curve["knee_batch"] or "–"
        counted = details["counted"][model]
        shown = " | ".join(_batch(found.get((model, size))) for size in sizes)
        lines.append(f"| {model} | {counted['params']:,} | {counted['macs'] / 1e6:,.0f} | {shown} | {knee} |")
    return "\n".join(lines)


def _batch(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    p50 = cell["p50"]["ms"]
    return f"{'–' if p50 is None else f'{p50:,.3g}' if p50 < 100 else f'{p50:,.0f}'} · {cell['images_per_second']:.3g}"


def passes(details: Mapping[str, Any]) -> str:
    """Return a row a searcher: its image passes over all of random search's, in each repetition and in the middle."""
    numbers = list(dict.fromkeys(row["repetition"] for row in details["rows"]))
    lines = [
        f"| searcher | {' | '.join(f'seed {number}' for number in numbers)} | median [smallest, largest] |",
        f"|{' --- |' * (len(numbers) + 2)}",
    ]
    for arm, median in details["medians"].items():
        own = {row["repetition"]: row for row in details["rows"] if row["arm"] == arm}
        shown = " | ".join(f"{'' if own[one]['reached'] else '> '}{own[one]['ratio']:.3f}" for one in numbers)
        lines.append(f"| {arm} | {shown} | {median['value']:.3f} [{median['low']:.3f}, {median['high']:.3f}] |")
    targets = " | ".join(f"{100 * one['target']:.2f} %" for one in details["targets"])
    return "\n".join([*lines, f"| target | {targets} | |"])


def formats(tables: Mapping[str, Any]) -> str:
    """Return a table a network: every file, what it changes, and whether it ships."""
    return "\n\n".join(_formats(name, table) for name, table in tables.items())


def _formats(name: str, table: Mapping[str, Any]) -> str:
    lines = [
        f"**`{name}`**: {table['architecture']} at {table['image_size']} px, {table['params']:,} parameters, "
        f"{table['macs'] / 1e6:,.1f} M MACs; {table['n']:,} test images",
        "",
        "| file | runtime | accuracy | change in points | bytes | p50 in ms | times eager | may replace fp32 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table["rows"]:
        p50, faster = row["p50"], row["eager_ratio"]
        change = "" if row.get("change") is None else _points(row["change"])
        accuracy = "" if "accuracy" not in row else f"{100 * row['accuracy']:.2f} %"
        size = "" if "size_bytes" not in row else f"{row['size_bytes']:,}"
        verdict = "" if "ships" not in row else ("yes" if row["ships"] else f"no: {_short(row['because'])}")
        lines.append(
            f"| {row['file']} | {row['backend']} | {accuracy} | {change} | {size} | "
            f"{p50['ms']:.3g} [{p50['low_ms']:.3g}, {p50['high_ms']:.3g}] | "
            f"{faster['value']:.2f} [{faster['low']:.2f}, {faster['high']:.2f}] | {verdict} |"
        )
    lines += [f"| {label} | | | | | | | refused: {_cell(why)} |" for label, why in table["refused"].items()]
    return "\n".join(lines)


def compression(table: Mapping[str, Any]) -> str:
    """Return what each chain of steps came to."""
    lines = [
        "| network | steps | accuracy before, after | change in points | bytes | time | ships |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table.values():
        if "failed" in row:
            lines.append(f"| {row['network']} | `{' '.join(row['steps'])}` | | | | | failed: {_cell(row['failed'])} |")
            continue
        trial = row["trials"][-1]
        speed = trial["speed"]
        time = (
            ""
            if speed is None
            else f"{speed['after_ms']:.3g} / {speed['before_ms']:.3g} ms = {speed['ratio']['value']:.2f}"
        )
        verdict = "yes" if trial["ship"] else f"no: {_short(trial['because'])}"
        lines.append(
            f"| {row['network']} | `{' '.join(row['steps'])}` | {100 * trial['before']['accuracy']:.2f} %, "
            f"{100 * trial['after']['accuracy']:.2f} % | {_points(trial['change'])} | × {trial['size_ratio']:.2f} | "
            f"{time} | {verdict} |"
        )
    return "\n".join(lines)


def reject(table: Mapping[str, Any]) -> str:
    """Return what is answered of known and of other images at each threshold."""
    lines = [
        "| bundle | no answer below | known images answered | of these right | other images answered all the same |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in table.items():
        for place, one in enumerate(found["thresholds"]):
            others = ", ".join(f"{other['name']} {_percent(other['answered'][place])}" for other in found["unlike"])
            lines.append(
                f"| `{name}` | {one['confidence']:.4f} | {_percent(one['answered'])} | {_percent(one['accuracy'])} | "
                f"{others} |"
            )
    return "\n".join(lines)


def _percent(share: Mapping[str, Any]) -> str:
    return "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * share[key] for key in ("value", "low", "high")))


def _points(change: Mapping[str, Any]) -> str:
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * change[key] for key in ("value", "low", "high")))


def _short(because: Sequence[str]) -> str:
    return _cell("; ".join(because))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


# What stands where: (results file, key of its details or None for all of them, page, its markers, how it is drawn).
TABLES = (
    ("tiny_cnn.json", None, "tiny.md", "bundles", bundles),
    ("lightweight_five.json", None, "compare.md", "bundles", bundles),
    ("tuning_seven_latency.json", None, "studies.md", "tuning_seven latency", batches),
    ("search_efficiency.json", None, "tuning.md", "passes", passes),
    ("ship.json", "formats", "shipping.md", "formats", formats),
    ("ship.json", "compression", "shipping.md", "compression", compression),
    ("ship.json", "reject", "serve.md", "reject", reject),
)
