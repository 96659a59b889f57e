"""Imports go one way, and what a device installs needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import flyweight

ROOT = Path(flyweight.__file__).parent
LAYERS = [
    "errors", "files", "runtime", "data", "models", "train", "tune", "compress", "export", "measure", "report",
    "studies", "fit", "api", "cli",
]  # fmt: skip
# Reached early on purpose. recipe: what a recipe is must be known without torch; calibration metrics are pure numpy.
ALLOWED: set[tuple[str, str]] = set()
TORCH_FREE = [
    "flyweight.api", "flyweight.cli", "flyweight.cli.fit", "flyweight.cli.train", "flyweight.cli.verify",
    "flyweight.cli.measure", "flyweight.cli.predict", "flyweight.cli.data", "flyweight.cli.doctor",
    "flyweight.cli.schema",
    "flyweight.runtime.predict", "flyweight.runtime.timing", "flyweight.data.sources", "flyweight.data.audit",
    "flyweight.data.cache", "flyweight.measure.speed", "flyweight.measure.verify", "flyweight.measure.latency",
    "flyweight.report", "flyweight.models.cost", "flyweight.models.zoo", "flyweight.train.recipe",
]  # fmt: skip


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(("flyweight", *path.relative_to(ROOT).with_suffix("").parts))
        yield name.removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[str]:
    """Yield every flyweight module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("flyweight"))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("flyweight"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> int | None:
    parts = name.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 1 and parts[1] in LAYERS else None


def test_every_module_imports_only_from_its_own_layer_and_those_above() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, path in modules()
        for target in imports(path)
        if (own := layer(name)) is not None and (theirs := layer(target)) is not None and theirs > own
        and (name, target) not in ALLOWED
    ]  # fmt: skip
    assert wrong == []


def test_every_package_is_in_the_order() -> None:
    found = {path.stem if path.suffix else path.name for path in ROOT.iterdir() if not path.name.startswith("_")}
    assert found - {"py"} <= set(LAYERS)


def test_no_module_imports_itself_through_others_at_load_time() -> None:
    graph = {name: set() for name, _ in modules()}
    for name, path in modules():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("flyweight"):
                for alias in node.names:
                    target = f"{node.module}.{alias.name}"
                    graph[name].add(target if target in graph else node.module)

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        return any(
            after == goal or (after not in seen and not seen.add(after) and reaches(after, goal, seen))  # type: ignore[func-returns-value]
            for after in graph.get(start, ())
        )

    assert [name for name in graph if reaches(name, name, set())] == []


def test_what_a_device_installs_loads_with_torch_blocked() -> None:
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {{'torch', 'torchvision', 'timm', 'scipy', 'sklearn', 'psutil'}}:
            raise ImportError(f'{{name}} is blocked')
sys.meta_path.insert(0, Blocked())
import importlib
for name in {TORCH_FREE!r}:
    importlib.import_module(name)
from flyweight.cli import run
assert run(['--help']) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
