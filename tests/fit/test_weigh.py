"""What is known before training belongs to the candidates, classes, channels and budget it was measured for."""

from __future__ import annotations

import json
from pathlib import Path

from flyweight.fit.candidates import Candidate
from flyweight.fit.contest import Outcome, _finalist
from flyweight.fit.weigh import WEIGHED, Weighed, weigh
from flyweight.measure.budget import Budget

TINY = [Candidate("tiny_cnn_4", 12)]


def test_a_stopped_run_takes_its_measurements_again_and_another_head_is_measured_anew(tmp_path: Path) -> None:
    budget = Budget.parse("params<1M")
    first = weigh(TINY, budget, tmp_path, channels=1, num_classes=3, threads=1)
    assert weigh(TINY, budget, tmp_path, channels=1, num_classes=3, threads=1) == first
    other = weigh(TINY, budget, tmp_path, channels=3, num_classes=10, threads=1)
    assert (other[0].values["params"] or 0) > (first[0].values["params"] or 0)
    assert json.loads((tmp_path / WEIGHED).read_text())["num_classes"] == 10


def test_a_final_training_that_failed_is_no_finalist() -> None:
    weighed = Weighed(TINY[0], {}, {}, (), 1, 0.0)
    failed = Outcome(weighed, "training failed: the loss became nan")
    assert _finalist(failed).status == failed.status
    assert _finalist(Outcome(weighed, "stopped at rung 1")).status == "finalist"
