"""The table over batches: how long a cell is sampled, what is left out, and that it is the asked batch that runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyweight.errors import BundleError
from flyweight.measure import batches
from flyweight.measure.batches import Cell, Deadline, Planned, effort_for, plan_cell, time_cells, within
from flyweight.runtime.memory import peak_memory
from flyweight.runtime.timing import MODEL, Effort, Spec, blocks_of, time_here


def waiting(folder: Path, milliseconds: float, batch: int = 1) -> Cell:
    file = folder / f"{milliseconds}.json"
    file.write_text(json.dumps({"milliseconds": milliseconds}))
    return Cell("waiting", file, "busy-wait", 1, batch)


def samples(effort: Effort, run_seconds: float, processes: int) -> int:
    """Return how many samples all processes give at least, at a pace."""
    return processes * min(effort.enough, math.ceil(effort.hard_seconds / run_seconds))


@pytest.mark.parametrize(
    ("batch", "run_seconds", "n"),
    [
        (1, 0.0001, 300), (8, 0.19, 300),  # 299 in under 60 s
        (8, 0.21, 30), (1, 1.9, 30),  # they would take longer: 30
        (1, 6.0, 12), (512, 10.0, 6),  # or as many as 60 s give
        (16, 0.005, 300), (16, 0.01, 30), (512, 1.0, 30),  # of larger batches 299 only where they cost nothing
    ],
)  # fmt: skip
def test_small_batches_get_299_samples_within_a_minute_and_others_30_or_a_minute(
    batch: int, run_seconds: float, n: int
) -> None:
    assert samples(effort_for(batch, run_seconds, 3), run_seconds, 3) == n


def test_no_cell_is_sampled_for_more_than_a_minute() -> None:
    assert all(3 * effort_for(batch, 1.0, 3).hard_seconds == 60 for batch in (1, 512))


def test_less_time_for_slow_cells_takes_none_from_those_with_299_samples() -> None:
    assert samples(effort_for(512, 1.0, 1, slow_seconds=10.0), 1.0, 1) == 10
    assert samples(effort_for(1, 0.1, 3, slow_seconds=10.0), 0.1, 3) == 300


def test_what_takes_longest_is_left_out_first_and_named_with_its_time(tmp_path: Path) -> None:
    plans = [Planned(waiting(tmp_path, 1.0, batch), Effort(), float(batch), 1) for batch in (64, 1, 32, 8)]
    chosen, left_out = within(plans, Deadline(minutes=0.8))
    assert [plan.cell.batch for plan in chosen] == [1, 32, 8]
    assert [one.what for one in left_out] == ["waiting, busy-wait, 1 thread(s), batch 64"]
    assert "about 64 s" in left_out[0].why


def test_without_a_limit_nothing_is_left_out(tmp_path: Path) -> None:
    plans = [Planned(waiting(tmp_path, 1.0), Effort(), 1e9, 1)]
    assert within(plans, Deadline()) == (plans, [])


def test_no_time_leaves_every_cell_out_with_the_reason(tmp_path: Path) -> None:
    timed, left_out = time_cells([waiting(tmp_path, 1.0), waiting(tmp_path, 1.0, 2)], deadline=Deadline(minutes=0.0))
    assert timed == []
    assert [one.why for one in left_out] == ["the 0 minutes were over"] * 2


def test_a_process_that_would_end_after_the_deadline_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes were planned for all of the time; each takes a fifth longer than it was given."""
    cell, pace = waiting(tmp_path, 1.0), (0.001, 100.0)
    planned = plan_cell(cell, *pace, 3, memory=False).seconds
    deadline, real = Deadline(minutes=1.1 * planned / 60), batches.time_in_fresh_process

    def slow(spec: Spec) -> dict[str, Any]:
        deadline.start -= 1.2 * planned / 3
        return real(spec)

    monkeypatch.setattr(batches, "time_in_fresh_process", slow)
    timed, left_out = time_cells([cell], deadline=deadline, processes=3, paces={cell: pace}, memory=False)
    assert left_out == []
    assert [len(one.latency.samples_ms) for one in timed] == [2]


def test_cells_are_timed_in_their_own_processes_and_given_back_in_order(tmp_path: Path) -> None:
    cells = [waiting(tmp_path, 4.0, 3), waiting(tmp_path, 2.0, 1)]
    timed, left_out = time_cells(cells, quick=True)
    assert left_out == []
    assert [one.cell for one in timed] == cells
    assert [len(one.latency.samples_ms) for one in timed] == [1, 1]
    assert all(one.latency.n >= 30 for one in timed)
    for one, expected in zip(timed, (4.0, 2.0), strict=True):
        assert min(one.latency.samples_ms[0]) >= expected
        assert one.rate <= one.cell.batch / expected * 1000
        assert one.memory is not None


def test_a_cell_that_cannot_run_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("nonsense")
    cells = [Cell("bad", tmp_path / "bad.json", "busy-wait", 1), waiting(tmp_path, 1.0)]
    timed, left_out = time_cells(cells, quick=True)
    assert [one.cell.model for one in timed] == ["waiting"]
    assert [one.what for one in left_out] == ["bad, busy-wait, 1 thread(s), batch 1"]
    assert "bad.json" in left_out[0].why


@pytest.mark.parametrize(("n", "batch"), [(8, 1), (8, 3), (32, 8), (8, 20), (1, 2)])
def test_blocks_go_through_the_images_in_order_and_over_again(n: int, batch: int) -> None:
    images = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1)
    blocks = blocks_of(images, batch)
    assert all(block.shape == (batch, 1, 1, 1) for block in blocks)
    seen = np.concatenate(blocks).ravel()
    np.testing.assert_array_equal(seen, np.arange(len(seen)) % n)


def test_the_clock_of_the_model_runs_the_asked_batch(bundle_path: Path) -> None:
    brief = Effort(samples=3, enough=1, soft_seconds=0.01, hard_seconds=1.0, warmup_seconds=0.01)
    spec = Spec(str(bundle_path / "model.onnx"), batch=5, batches=(5,), effort=brief, throughput_effort=brief)
    found = time_here(spec)
    assert len(found["clocks"][MODEL]["samples_ns"]) >= 1
    assert [row["batch"] for row in found["throughput"]] == [5]


def test_a_larger_batch_takes_more_memory(bundle_path: Path) -> None:
    file, large = bundle_path / "model.onnx", 100_000
    empty = peak_memory(file, repeats=1).empty_bytes
    found = peak_memory(file, batch=large, repeats=1, empty_bytes=empty)
    assert found.empty_bytes == empty
    assert found.increment_bytes > large * 3 * 12 * 12  # bytes of the images alone


def test_a_batch_too_large_for_the_memory_leaves_the_smaller_ones_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(spec: Spec) -> dict[str, object]:
        if max(spec.batches) > 8:
            raise BundleError("the system ended the process", do="free some memory")
        return {"throughput": [{"batch": size, "images_per_second": 10.0, "n": 1} for size in spec.batches]}

    monkeypatch.setattr(batches, "time_in_fresh_process", look)
    cells = [waiting(tmp_path, 1.0, size) for size in (1, 8, 64, 512)]
    paces, left_out = batches.first_look(cells, Deadline())
    assert list(paces) == cells[:2]
    assert [one.what[-3:] for one in left_out] == ["512", " 64"]


def test_a_first_look_gives_a_batch_that_is_too_long_the_pace_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"throughput": [{"batch": 1, "images_per_second": 2.0, "n": 1}]}
    monkeypatch.setattr(batches, "time_in_fresh_process", lambda spec: rows)
    paces, _ = batches.first_look([waiting(tmp_path, 1.0), waiting(tmp_path, 1.0, 64)], Deadline())
    assert [pace for pace, _ in paces.values()] == [0.5, 32.0]


def test_cells_may_have_numbers_of_processes_of_their_own_and_paces_that_are_known(tmp_path: Path) -> None:
    cells = [waiting(tmp_path, 1.0, batch) for batch in (1, 2)]
    counts = {cells[0]: 2, cells[1]: 1}
    timed, left_out = time_cells(
        cells, quick=True, processes=counts, paces=dict.fromkeys(cells, (0.01, 0.5)), memory=False
    )
    assert left_out == []
    assert [len(one.latency.samples_ms) for one in timed] == [2, 1]
    assert [one.memory for one in timed] == [None, None]


@pytest.mark.parametrize(
    ("run", "warmup", "sampling", "own"),
    # One run of 6 s ends the warm-up; 5 of 6 s end the 30 s of a process; one ends the 4 s of the throughput, after one
    # that warms up.
    [(6.0, 6.0, 30.0, 12.0), (0.5, 1.5, 7.5, 2.0)],
)
def test_whole_runs_are_planned_the_last_begun_before_the_end(
    tmp_path: Path, run: float, warmup: float, sampling: float, own: float
) -> None:
    planned = plan_cell(waiting(tmp_path, 1.0, 64), run, 1.0, 2, memory=False)
    assert planned.seconds == pytest.approx(2 * (1.0 + warmup + sampling + own))
