"""The latency table of eight networks: what is timed with which batch, in which order, and what is read back."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import tuning_seven_latency

    return tuning_seven_latency


def nets(script: ModuleType) -> list[Any]:
    """Return a light network, and a heavy one at both sizes."""
    sizes = (("light", 224, 2e8), ("heavy", 224, 4e9), ("heavy", 64, 3e8))
    return [script.Net(name, side, Path("x.onnx"), 1000, int(macs), (1000, int(macs))) for name, side, macs in sizes]


def test_heavy_networks_have_batches_above_32_at_64_px_only(script: ModuleType) -> None:
    light, heavy, small = nets(script)
    assert script.batches_of(light, script.BATCHES) == script.BATCHES
    assert script.batches_of(heavy, script.BATCHES) == (1, 2, 4, 8, 16, 32)
    assert script.batches_of(small, script.BATCHES) == (64, 128, 256, 512)


def test_each_cell_is_planned_once_and_the_first_backend_comes_whole_before_the_others(script: ModuleType) -> None:
    groups = list(script.groups_of(nets(script), script.BATCHES, ("onnxruntime", "openvino"), (1, 2)))
    cells = [cell for group in groups for cell in group.cells]
    assert len(cells) == len(set(cells)) == 4 * (10 + 6 + 4) + 6
    assert [(cell.backend, cell.threads) for cell in cells[:26]] == [("onnxruntime", 1)] * 26
    assert [cell.batch for cell in cells[20:26]] == [1, 2, 4, 8, 16, 32]
    assert {cell.batch for cell in cells[26 : 26 + 3 * (4 + 2 + 2)]} == {1, 8, 64, 512}
    assert all(group.processes == (3 if max(cell.batch for cell in group.cells) <= 8 else 1) for group in groups)


def test_a_finished_cell_is_not_planned_again(script: ModuleType) -> None:
    done = {("light 224 px", "onnxruntime", 1, 2)}
    groups = list(script.groups_of(nets(script)[:1], (1, 2, 4), ("onnxruntime",), (1,), done))
    assert [[cell.batch for cell in group.cells] for group in groups] == [[1, 4]]


def test_more_work_is_planned_longer(script: ModuleType) -> None:
    first, second = script.groups_of(nets(script)[:1], (1, 512), ("onnxruntime",), (1,))
    assert second.seconds(10.0) > first.seconds(10.0)


def row(script: ModuleType, batch: int, rate: float) -> dict[str, Any]:
    quantile = {"ms": 1000 * batch / rate, "low_ms": None, "high_ms": None, "reason": None}
    return {
        "model": "light 224 px", "precision": "fp32", "backend": "onnxruntime", "threads": 1, "batch": batch, "n": 30,
        "processes": 1, "p50": quantile, "p90": quantile, "p99": quantile, "device_p50": None,
        "images_per_second": rate, "images_per_second_low": rate, "images_per_second_high": rate,
        "memory_peak_bytes": 1, "memory_increment_bytes": 1, "steady": True, "disturbed": False,
        "image_size": 224, "date": "today", "load_average": 0.0, "group": "light, batch 1 to 8",
        "group_seconds": 90.0, "versions": script.engines(),
    }  # fmt: skip


def test_the_table_has_a_row_a_network_and_counts_beside_it(script: ModuleType) -> None:
    rows = [row(script, batch, rate) for batch, rate in ((1, 100.0), (2, 180.0), (4, 190.0), (8, 195.0))]
    lines = script.markdown(rows, nets(script)).splitlines()
    assert "| network | parameters | MACs | 1 | 2 | 4 | 8 | knee | saturated |" in lines
    (found,) = [line for line in lines if line.startswith("| light")]
    assert found == (
        "| light 224 px | 1,000 | 200,000,000 | 10 · 100 | 11.11 · 180 | 21.05 · 190 | 41.03 · 195 | 2 | 4 |"
    )


def test_cells_of_other_versions_are_not_read_back(script: ModuleType, tmp_path: Path) -> None:
    rows = [row(script, 1, 100.0), {**row(script, 2, 100.0), "versions": {"onnxruntime": "0.1"}}]
    file = tmp_path / "cells.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert [one["batch"] for one in script.read_rows(file)] == [1]
    assert script.read_rows(tmp_path / "none.jsonl") == []


def test_the_results_hold_every_cell_its_curve_and_what_was_left_out(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "write_results", partial(script.write_results, folder=tmp_path))
    rows = [row(script, batch, 100.0) for batch in (1, 2, 4)]
    net = script.Net("light", 224, tmp_path / "x.onnx", 1000, 200, (1000, 200))
    net.file.write_bytes(b"12345")
    left_out = [script.LeftOut("light 224 px, batch 8", "no time")]
    path = script._write(rows, [net], left_out, argparse.Namespace(minutes_per_cell=1.0))
    content = json.loads(path.read_text())
    assert path.name == "tuning_seven_latency.json"
    assert content["claims"] == []
    assert content["conditions"]["wall_minutes"] == {"onnxruntime, 1 thread(s)": 1.5}
    details = content["details"]
    assert details["cells"] == rows
    assert [curve["saturation_batch"] for curve in details["curves"]] == [1]
    assert details["left_out"] == [{"what": "light 224 px, batch 8", "why": "no time"}]
    assert details["counted"]["light 224 px"]["size_bytes"] == 5
