"""The code that decides what a training gives: any change of it is another, and nothing else is."""

from __future__ import annotations

import ast
from importlib import metadata
from pathlib import Path

import numpy as np

import flyweight
from flyweight.runtime.code import DECIDING, LIBRARIES, code_facts, hash_of
from flyweight.tune.search import search_code


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
    assert facts["version of pillow"] == metadata.version("pillow")
    assert len(facts) == len(DECIDING) + len(LIBRARIES)


def test_a_search_is_decided_by_what_chooses_its_trials_too() -> None:
    facts = search_code()
    assert code_facts().items() < facts.items()
    assert facts["version of optuna"] == metadata.version("optuna")
    assert "code of flyweight.tune" in facts


def test_what_training_takes_from_elsewhere_is_hashed_or_decides_nothing() -> None:
    root = Path(flyweight.__file__).parent
    taken = set()
    for package in ("data", "models", "train"):
        for file in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("flyweight."):
                    taken.add(node.module.removeprefix("flyweight."))
    outside = {name for name in taken if name.split(".")[0] not in ("data", "models", "train")}
    # Words of errors, how files are written, and what the machine is called.
    assert outside - {"errors", "files", "runtime.environment"} == {"runtime.preprocess", "runtime.resize"}
    assert {"runtime.preprocess", "runtime.resize"} < set(DECIDING)
