import json
import subprocess
import sys
from pathlib import Path

import pytest

from flyweight.cli import run
from flyweight.cli.doctor import examine, folder_bytes, missing
from flyweight.report import Facts, build_report


def test_report_draws_the_page_again_from_its_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = build_report(Facts(title="flowers"), tmp_path).html
    before = page.read_bytes()
    page.unlink()
    assert run(["report", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["html"] == str(page)
    assert page.read_bytes() == before


def test_report_of_a_folder_without_one_ends_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_doctor_and_report_import_no_torch(tmp_path: Path) -> None:
    build_report(Facts(title="x"), tmp_path)
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from flyweight.cli import run\n"
        f"sys.exit(run(['doctor', '--json']) or run(['report', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_doctor_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["python"] == sys.version.split()[0]


def test_doctor_for_people_names_the_cache_and_the_line_that_installs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("flyweight.cli.doctor._installed", lambda name: name != "plotly")
    assert run(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "missing plotly: pip install 'flyweight[report]'" in said
    assert str(tmp_path) in said


def test_doctor_hides_the_value_of_a_variable_that_names_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWEIGHT_TOKEN", "abc")
    monkeypatch.setenv("FLYWEIGHT_DATA", "/data")
    assert {"FLYWEIGHT_TOKEN": "***", "FLYWEIGHT_DATA": "/data"}.items() <= examine()["variables"].items()


def test_an_installed_extra_misses_nothing() -> None:
    assert missing("report") == []


def test_the_size_of_a_folder_is_the_bytes_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "deep" / "b").write_bytes(b"678")
    assert folder_bytes(tmp_path) == 8
    assert folder_bytes(tmp_path / "absent") == 0
