"""`run.py` of a kit: says what this machine lacks, then starts the runner beside it.

Python 3.6 and newer can read this file, to be told what is too old.
"""

import os
import sys

OLDEST = (3, 11)
RUNNER = ("numpy", "onnxruntime", "pillow")  # without these nothing runs
MODULES = {"pillow": "PIL", "ai-edge-litert": "ai_edge_litert"}  # where a package is imported under another name


def main() -> int:
    """Return the exit code of the runner, or 1 with the line that mends what is missing."""
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.version_info < OLDEST:
        return _complain(
            f"this is Python {sys.version.split()[0]}, and the kit needs {OLDEST[0]}.{OLDEST[1]} or newer",
            "install a newer Python, and run it with that: python3.11 run.py",
        )
    lacking = _lacking(os.path.join(here, "requirements.txt"))
    if any(line.partition(">=")[0] in RUNNER for line in lacking):
        return _complain(f"missing on this machine: {', '.join(lacking)}", _pip_line(here))
    if lacking:  # a runtime that there may be none of for this machine: the other models are measured
        _complain(f"not measured for want of: {', '.join(lacking)}", _pip_line(here))
    runner = os.path.join(here, "runner")
    sys.path.insert(0, runner)
    # The fresh processes that are timed find the same runner, whatever else is installed.
    os.environ["PYTHONPATH"] = runner
    from pathlib import Path

    from flyweight.kit.run import main as run

    return run(Path(here), sys.argv[1:])


def _lacking(requirements: str) -> "list[str]":
    from importlib import metadata, util

    lacking = []
    with open(requirements) as file:
        for line in filter(None, map(str.strip, file)):
            name, _, least = line.partition(">=")
            if util.find_spec(MODULES.get(name, name)) is None:
                lacking.append(line)
                continue
            try:
                found = metadata.version(name)
            except metadata.PackageNotFoundError:  # a build of another name, such as onnxruntime-gpu
                continue
            if _numbers(found) < _numbers(least):
                lacking.append(f"{line} (found {found})")
    return lacking


def _numbers(version: str) -> "list[int]":
    return [int(part) for part in version.split(".")[:2] if part.isdigit()]


def _pip_line(here: str) -> str:
    import sysconfig

    python, prefix = sys.executable or "python3", ""
    if sys.prefix == sys.base_prefix and os.path.exists(
        os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    ):
        prefix, python = f"{python} -m venv env && ", os.path.join("env", "bin", "python")
    wheels = os.path.join(here, "wheels")
    offline = f" --no-index --find-links {wheels}" if os.path.isdir(wheels) else ""
    with open(os.path.join(here, "requirements.txt")) as file:
        wanted = " ".join(f'"{line}"' for line in map(str.strip, file) if line)
    return f"{prefix}{python} -m pip install{offline} {wanted}, and run it with {python}"


def _complain(what: str, do: str) -> int:
    sys.stderr.write(f"error: {what}\n  do: {do}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
