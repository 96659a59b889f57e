"""The latency table of eight networks: what is timed with which batch, in which order, and what is read back."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
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


MEGAMACS = {  # of one image at 224 px and at 64 px, where that is timed too
    "convnext_tiny": (4456, 364), "efficientnetv2_s": (2850, 237), "mobilenetv3_large_100": (217,),
    "mobilevitv2_050": (362,), "mobilevitv2_075": (801, 65), "mobilevitv2_100": (1412, 114), "repvgg_a2": (5117, 419),
    "tiny_vit_21m_224": (4250, 1315),
}  # fmt: skip


def eight(script: ModuleType) -> list[Any]:
    """Return the eight networks with their MACs at both sizes."""
    return [
        script.Net(name, side, Path(f"{name}-{side}.onnx"), 1000, 10**6 * count, (1000, 10**6 * count))
        for name in script.NETS
        for side, count in zip((224, 64), MEGAMACS[name], strict=False)
    ]


def wanted(
    script: ModuleType, members: list[Any], backends: tuple[str, ...] = ("onnxruntime", "openvino")
) -> list[Any]:
    return list(script.wanted_of(members, script.BATCHES, backends, (1, 2)))


def test_each_cell_is_wanted_once_and_the_first_backend_comes_whole_before_the_others(script: ModuleType) -> None:
    found = wanted(script, nets(script))
    cells = [one.cell for one in found]
    arms = [cell for cell in cells if cell.model.endswith(script.AGAIN)]
    assert len(cells) == len(set(cells)) == 4 * (10 + 6 + 4) + 6 + len(arms)
    assert all((cell.backend, cell.threads) == ("onnxruntime", 1) for cell in cells[: 26 + len(arms)])
    assert [one.core for one in found] == [True] * (20 + len(arms)) + [False] * (6 + 60)


def test_every_range_has_two_networks_twice_for_the_noise(script: ModuleType) -> None:
    found = wanted(script, eight(script))
    cells = {one.cell for one in found}
    for span in script.RANGES:
        arms = [one for one in found if one.range == span and one.cell.model.endswith(script.AGAIN)]
        assert len({one.cell.model for one in arms}) == 2
        assert {replace(one.cell, model=one.cell.model.removesuffix(script.AGAIN)) for one in arms} <= cells


def test_the_whole_plan_is_under_55_minutes_and_holds_the_table_but_for_its_slowest_cell(script: ModuleType) -> None:
    everything = wanted(script, eight(script))
    chosen, left_out = script.choose(everything, 55 * 60, 60.0)
    assert sum(one.seconds(60.0) for one in chosen) <= 55 * 60
    missing = {one.cell for one in everything if one.core} - {one.cell for one in chosen}
    assert len(missing) <= 1
    assert {cell.batch for cell in missing} <= {512}
    assert {str(cell) for cell in missing} <= {one.what for one in left_out}
    assert len(chosen) + len(left_out) == len(everything)


def test_a_cell_comes_in_when_the_pace_that_was_measured_is_better_than_the_one_from_macs(script: ModuleType) -> None:
    everything = wanted(script, eight(script))
    (slowest,) = [one for one in everything if (one.cell.model, one.cell.batch) == ("tiny_vit_21m_224 64 px", 512)][:1]
    quicker = [replace(one, pace=0.002) if one.net is slowest.net else one for one in everything]
    assert slowest.cell in {one.cell for one in script.choose(quicker, 55 * 60, 60.0)[0]}


def test_what_does_not_fit_is_named_and_the_longest_cells_of_the_table_go_first(script: ModuleType) -> None:
    everything = wanted(script, eight(script), ("onnxruntime",))
    chosen, left_out = script.choose(everything, 20 * 60, 60.0)
    assert sum(one.seconds(60.0) for one in chosen) <= 20 * 60
    longest = max((one for one in everything if one.core), key=lambda one: one.seconds(60.0))
    assert str(longest.cell) in {one.what for one in left_out}
    assert all("not enough" in one.why for one in left_out)


def test_what_is_left_of_the_time_pays_for_second_processes(script: ModuleType) -> None:
    table = [one for one in wanted(script, eight(script)) if one.core and one.cell.batch > 8]
    least = sum(one.seconds(60.0) for one in table)
    few, left_out = script.choose(table, least + 0.001, 60.0)  # sums in another order differ in the last digit
    assert not left_out
    assert {one.processes for one in few} == {1}
    assert {one.processes for one in script.choose(table, 3 * least, 60.0)[0]} == {2}


def test_a_range_that_is_finished_is_not_added_to(script: ModuleType) -> None:
    everything = wanted(script, nets(script))
    todo, gone = script.unfinished(everything, [row(script, 1, 100.0)])
    assert {one.range for one in todo} == set(script.RANGES[1:])
    assert "light 224 px, onnxruntime, 1 thread(s), batch 2" in {one.what for one in gone}
    assert "light 224 px, onnxruntime, 1 thread(s), batch 1" not in {one.what for one in gone}


def test_a_measured_pace_replaces_the_one_from_macs(script: ModuleType) -> None:
    one = next(one for one in wanted(script, nets(script)) if one.cell.batch == 16)
    assert script.with_pace(one, [row(script, 8, 50.0), row(script, 1, 10.0)]).run_seconds == 16 / 50


def minutes(script: ModuleType, file: Path, seconds: float) -> None:
    lines = [{"call": "a", "seconds": part * seconds, "versions": script.engines()} for part in (0.5, 1.0)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_minutes_of_calls_that_were_stopped_count(script: ModuleType, tmp_path: Path) -> None:
    minutes(script, tmp_path / "minutes.jsonl", 600.0)
    assert script.minutes_spent(tmp_path / "minutes.jsonl") == 10.0
    assert script.minutes_spent(tmp_path / "none.jsonl") == 0.0


def options(tmp_path: Path, **changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"runs": tmp_path, "minutes": 55.0, "plan": False} | changes)


def test_no_call_begins_what_would_take_all_of_them_beyond_their_minutes(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    minutes(script, tmp_path / "minutes.jsonl", 54.99 * 60)
    everything = wanted(script, eight(script))
    left_out = script._measure_all(everything, options(tmp_path), 60.0)
    assert len(left_out) == len(everything)
    assert "0 cells to measure" in capsys.readouterr().out
    assert not (tmp_path / "cells.jsonl").exists()


def test_a_plan_is_printed_and_nothing_is_timed(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script._measure_all(wanted(script, eight(script)), options(tmp_path, plan=True), 60.0)
    said = capsys.readouterr().out
    parts = [float(line.split()[-2]) for line in said.splitlines() if line.startswith("  batch")]
    (whole,) = [float(line.split()[1]) for line in said.splitlines() if line.startswith("  all: ")]
    assert sum(parts) == pytest.approx(whole, abs=0.3)
    assert 50 < whole <= 55
    assert list(tmp_path.iterdir()) == []


def test_more_than_an_hour_is_refused(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x", "--minutes", "61"])
    with pytest.raises(SystemExit, match="at most 60 minutes"):
        script.main()


def test_networks_of_a_range_take_turns_and_their_arms_give_the_noise(script: ModuleType, tmp_path: Path) -> None:
    members = []
    for name, ms in (("light", 4.0), ("heavy", 8.0)):
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"milliseconds": ms}))
        members.append(script.Net(name, 224, file, 1, 1000, (1, 1000)))
    table = list(script.wanted_of(members, (1,), ("busy-wait",), (1,)))
    cells, ledger = tmp_path / "cells.jsonl", tmp_path / "minutes.jsonl"
    asked = [replace(one, processes=1, pace=0.3) for one in table]  # too slow for 299: 30 samples each
    assert script.measure(asked, (1, 8), 20.0, cells, ledger, script.Deadline(5.0)) == []
    rows = script.read_rows(cells)
    names = ("light 224 px", "heavy 224 px")
    assert {one["model"] for one in rows} == {*names, *(name + script.AGAIN for name in names)}
    pairs = script.noise_of(rows)
    assert {pair["model"] for pair in pairs} == set(names)
    by_name = {one["model"]: one for one in rows}
    for pair in pairs:
        once, again = (by_name[pair["model"] + more]["p50"]["ms"] for more in ("", script.AGAIN))
        assert pair["p50"] == pytest.approx(abs(again - once) / once)
    assert "batch 1 to 8: p50" in script._noise_shown(pairs)
    assert script.minutes_spent(ledger) > 0
    assert [one.model for one in script.batch_rows(rows)] == list(names)


def row(script: ModuleType, batch: int, rate: float) -> dict[str, Any]:
    quantile = {"ms": 1000 * batch / rate, "low_ms": None, "high_ms": None, "reason": None}
    return {
        "model": "light 224 px", "precision": "fp32", "backend": "onnxruntime", "threads": 1, "batch": batch, "n": 30,
        "processes": 1, "p50": quantile, "p90": quantile, "p99": quantile, "device_p50": None,
        "images_per_second": rate, "images_per_second_low": rate, "images_per_second_high": rate,
        "memory_peak_bytes": 1, "memory_increment_bytes": 1, "steady": True, "disturbed": False,
        "image_size": 224, "date": "today", "load_average": 0.0, "range": [1, 8], "range_seconds": 90.0,
        "versions": script.engines(),
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
    path = script._write(rows, [net], left_out, options(tmp_path, minutes_per_cell=1.0))
    content = json.loads(path.read_text())
    assert path.name == "tuning_seven_latency.json"
    assert content["claims"] == []
    assert content["conditions"]["wall_minutes"] == {"batch 1 to 8": 1.5}
    details = content["details"]
    assert details["cells"] == rows
    assert [curve["saturation_batch"] for curve in details["curves"]] == [1]
    assert details["left_out"] == [{"what": "light 224 px, batch 8", "why": "no time"}]
    assert details["counted"]["light 224 px"]["size_bytes"] == 5
