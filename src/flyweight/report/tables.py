"""The table of a comparison as CSV, for programs, and as LaTeX, for papers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from flyweight.report.facts import Measured
from flyweight.report.study import ArmFacts, DataSetFacts, StudyFacts

_LATEX = {sign: f"\\{sign}" for sign in "_%&#${}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "′": "'",
}


def csv_table(facts: StudyFacts) -> str:
    """Return one row an arm and data set: shares in 0..1, ms, bytes, counts; empty where nothing is known."""
    out = io.StringIO()
    engines = list(dict.fromkeys(engine for data in facts.datasets for engine in data.other_backends))
    rows = [_row(data, arm, engines) for data in facts.datasets for arm in data.arms]
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue()


def latex_table(facts: StudyFacts) -> str:
    """Return a booktabs table a data set; letters as superscripts, networks in the order of their accuracy."""
    return "\n\n".join(_latex(facts, data) for data in facts.datasets)


def _row(data: DataSetFacts, arm: ArmFacts, engines: Sequence[str]) -> dict[str, Any]:
    cost, others = arm.deployed, {other.backend: other.latency_p50_ms for other in arm.elsewhere}
    return {
        "dataset": data.name, "train_images": data.train_images, "arm": arm.arm, "group": arm.group,
        "seeds": len(arm.per_seed), "diverged": arm.diverged, "at_chance": arm.at_chance,
        "accuracy": arm.accuracy.value, "accuracy_low": arm.accuracy.low, "accuracy_high": arm.accuracy.high,
        "ranked": arm.ranked, "letters": arm.letters, "trained_enough": arm.enough,
        "top5": arm.top5, "balanced_accuracy": arm.balanced,
        "ece": arm.ece, **_worst(data, arm), "params": arm.params, "macs": arm.macs, "flops": 2 * arm.macs,
        "macs_by_torch": arm.macs_by_torch, "size_bytes": arm.size_bytes,
        "backend": cost.backend if cost else None, "threads": cost.threads if cost else None,
        **_quantile("latency_p50_ms", cost.latency_p50_ms if cost else Measured()),
        **_quantile("latency_p90_ms", cost.latency_p90_ms if cost else Measured()),
        **{key: value for name in engines for key, value in
           _quantile(f"{name}_latency_p50_ms", others.get(name, Measured())).items()},
        "memory_bytes": cost.memory_bytes if cost else None,
        "memory_increment_bytes": cost.memory_increment_bytes if cost else None,
        "image_passes": arm.image_passes, "train_macs": arm.train_macs, "train_seconds": arm.train_seconds,
        "pretrained": arm.pretrained, "pretrained_on_this": arm.seen,
    }  # fmt: skip


def _worst(data: DataSetFacts, arm: ArmFacts) -> dict[str, str | float | None]:
    name, recall = data.worst_class(arm) or (None, None)
    return {"worst_class": name, "worst_class_recall": recall}


def _quantile(name: str, found: Measured) -> dict[str, float | None]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _latex(facts: StudyFacts, data: DataSetFacts) -> str:
    threads = next((arm.deployed.threads for arm in data.arms if arm.deployed), None)
    where = facts.conditions.details.get("files timed", "")
    timed = f" Latency: {threads} thread(s), batch 1, {_escaped(where)}." if threads else ""
    same = "networks that share a letter were not found different (Holm, 5\\,\\%)"
    same = same if any(arm.letters for arm in data.arms) else "too few seeds for letters"
    seen = r" \dag: pretraining saw images of this data set." if any(arm.seen for arm in data.arms) else ""
    lines = [
        r"\begin{table}",
        rf"\caption{{{_escaped(data.title)}: mean over seeds with 95\,\% intervals; {same}.{seen}{timed}}}",
        r"\begin{tabular}{lrrrrrr}",
        r"\toprule",
        r"network & accuracy (\%) & params (k) & MFLOPs & file (kB) & memory (MB) & p50 (ms) \\",
        r"\midrule",
    ]
    for arm in sorted(data.arms, key=lambda arm: -(arm.accuracy.value or 0.0)):
        accuracy, low, high = (
            None if v is None else 100 * v for v in (arm.accuracy.value, arm.accuracy.low, arm.accuracy.high)
        )
        shown = f"{accuracy:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low is not None else "")
        shown += rf"\textsuperscript{{{_escaped(arm.letters)}}}" if arm.letters else ""
        shown = shown if arm.enough else "not trained enough"
        shown += r"\textsuperscript{\dag}" if arm.seen else ""
        shown += f", {arm.lost_text}" if arm.lost_text else ""
        cost = arm.deployed
        cells = [
            _escaped(arm.title), shown, f"{arm.params / 1e3:.1f}", f"{2 * arm.macs / 1e6:.1f}",
            "--" if arm.size_bytes is None else f"{arm.size_bytes / 1e3:.1f}",
            "--" if cost is None else f"{cost.memory_bytes / 1e6:.1f}",
            "--" if cost is None or cost.latency_p50_ms.value is None else f"{cost.latency_p50_ms.value:.3f}",
        ]  # fmt: skip
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
