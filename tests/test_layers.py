"""Imports go one way, and what a device installs needs no torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import flyweight

ROOT = Path(flyweight.__file__).parent
LAYERS = [
    "errors", "files", "runtime", "data", "models", "train", "export", "measure", "kit", "report", "web", "serve",
    "compress", "tune",
    "studies", "published", "fit", "api", "cli",
]  # fmt: skip
# docs/architecture.md, "No torch at import".
TORCH_FREE = (
    "runtime",
    "data",
    "measure",
    "kit",
    "report",
    "web",
    "serve",
    "api",
    "cli",
    "models.zoo",
    "models.cost",
    "train.recipe",
    "train.range_curve",
)
NEEDS_TORCH = ("data.batches", "data.augment")


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


def within(name: str, places: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"flyweight.{place}.") for place in places)


def load_without_torch(names: list[str]) -> subprocess.CompletedProcess[str]:
    """Import modules in a fresh process in which torch and what comes with it cannot be imported, then ask for help."""
    code = f"""
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {{'torch', 'torchvision', 'timm', 'scipy', 'sklearn', 'psutil'}}:
            raise ImportError(f'{{name}} is blocked')
sys.meta_path.insert(0, Blocked())
for name in {names!r}:
    importlib.import_module(name)
from flyweight.cli import run
sys.exit(run(['--help']))
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_what_a_device_installs_loads_with_torch_blocked() -> None:
    names = [name for name, _ in modules() if within(name, TORCH_FREE) and not within(name, NEEDS_TORCH)]
    assert {"flyweight.runtime.backends.onnxruntime", "flyweight.data.sources.hf", "flyweight.cli.fit"} <= set(names)
    done = load_without_torch(names)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_the_block_on_torch_would_be_noticed() -> None:
    assert "torch is blocked" in load_without_torch(["flyweight.data.batches"]).stderr


def test_the_architecture_page_names_what_loads_without_torch() -> None:
    page = (ROOT.parent.parent / "docs/architecture.md").read_text("utf-8")
    sentence = page[page.index("No torch at import") :].split("\n\n")[0]
    said = {word.removesuffix(".py").replace("/", ".").strip(".") for word in re.findall(r"`([^`]+)`", sentence)}
    assert said == {*TORCH_FREE, "batches", "augment"}
