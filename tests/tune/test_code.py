"""The code that decides what a training gives: any change of it is another, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flyweight.tune.code import DECIDING, code_facts, hash_of


def test_a_changed_moved_or_new_file_of_code_is_another_code_and_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "loop.py").write_text("step = 1\n")
    (tmp_path / "part" / "loss.py").write_text("")
    first = hash_of(tmp_path)
    (tmp_path / "notes.txt").write_text("about")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "loop.pyc").write_bytes(b"\0")
    assert hash_of(tmp_path) == first
    (tmp_path / "part" / "loss.py").rename(tmp_path / "loss.py")
    assert hash_of(tmp_path) != first
    (tmp_path / "loss.py").rename(tmp_path / "part" / "loss.py")
    assert hash_of(tmp_path) == first
    (tmp_path / "loop.py").write_text("step = 2\n")
    assert hash_of(tmp_path) != first


def test_the_facts_name_every_deciding_package_and_library() -> None:
    facts = code_facts()
    assert {f"code of flyweight.{name}" for name in DECIDING} < set(facts)
    assert facts["version of numpy"] == np.__version__
    assert {"version of torch", "version of timm"} < set(facts)
