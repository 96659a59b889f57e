"""optuna-dashboard, the real one, opens the database of a search as it opens any study of Optuna's."""

from __future__ import annotations

import io
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import numpy as np
import pytest
import yaml

from flyweight.cli import run
from flyweight.report.tuning import TuningFacts

SPACE = {"params": [{"key": "optim.lr", "low": 0.01, "high": 1.0, "log": True}], "fixed": {"model.name": "tiny_cnn_4"}}


def get(app: Any, path: str) -> Any:
    """Return what the server answers to a GET, from JSON."""
    request: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    setup_testing_defaults(request)
    request["wsgi.errors"] = said = io.StringIO()
    status: list[str] = []
    body = b"".join(app(request, lambda line, headers, error=None: status.append(line)))
    assert status == ["200 OK"], said.getvalue()
    return json.loads(body)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:bottle")
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_dashboard_shows_every_trial_with_its_values_and_its_score(tmp_path: Path) -> None:
    if find_spec("optuna_dashboard") is None:
        assert os.environ.get("CI") != "true", "CI installs all extras"
        pytest.skip("optuna-dashboard is not installed: pip install 'flyweight[dashboard]'")
    import optuna_dashboard

    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "two.npz", images=images, labels=np.arange(200) % 2)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    words = ["tune", str(tmp_path / "two.npz"), "--recipe", "smoke", "--set", "epochs=1", "--set", "data.image_size=8"]
    words += ["--space", str(tmp_path / "space.yaml"), "--stop", "none", "--trials", "2", "--jobs", "1"]
    assert run([*words, "--name", "mine", "--out", str(tmp_path / "out")]) == 0
    facts = TuningFacts.model_validate_json((tmp_path / "out" / "report.json").read_bytes())

    app = optuna_dashboard.wsgi(f"sqlite:///{tmp_path / 'out' / 'study.db'}")
    (study,) = get(app, "/api/studies")["study_summaries"]
    assert study["study_name"] == "mine"
    shown = get(app, f"/api/studies/{study['study_id']}")["trials"]
    assert [trial["state"] for trial in shown] == ["Complete", "Complete"]
    for mine, theirs in zip(facts.trials, shown, strict=True):
        assert theirs["values"] == [mine.score]
        (param,) = theirs["params"]
        assert param["name"] == "optim.lr"
        assert float(param["param_external_value"]) == pytest.approx(mine.values["optim.lr"])
