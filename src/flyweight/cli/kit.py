"""`flyweight kit`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli.progress import need_train_extra
from flyweight.cli.sweep import numbers
from flyweight.kit.pack import UntrainedFile, write_kit
from flyweight.runtime.bundle import Bundle


def kit(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or .zip.")],
    out: Annotated[Path, typer.Option(help="The archive to write.")] = Path("kit.zip"),
    variant: Annotated[list[str] | None, typer.Option(help="Only this model file (repeat); all without.")] = None,
    threads: Annotated[str, typer.Option(help="Threads to time with, such as 1,4.")] = "1",
    name: Annotated[str | None, typer.Option(help="What the device will be called, such as pi4.")] = None,
    candidates: Annotated[
        bool, typer.Option("--candidates", help="Also the untrained networks that fit chooses from.")
    ] = False,
    models: Annotated[list[str] | None, typer.Option(help="With --candidates: networks (repeat).")] = None,
    sizes: Annotated[list[int] | None, typer.Option(help="With --candidates: image sizes in px (repeat).")] = None,
    wheels: Annotated[Path | None, typer.Option(help="Folder of wheels to carry for a device without network.")] = None,
    ssh: Annotated[str | None, typer.Option(help="Run it there now: USER@HOST, as for ssh.")] = None,
    result: Annotated[Path, typer.Option(help="With --ssh: where the result goes.")] = Path("result.json"),
    python: Annotated[str, typer.Option(help="With --ssh: Python on that machine.")] = "python3",
    ssh_config: Annotated[Path | None, typer.Option(help="With --ssh: as ssh -F.")] = None,
    quick: Annotated[bool, typer.Option(help="With --ssh: as run.py --quick.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a small archive that measures a bundle on another machine, without torch."""
    only = {"--models": models, "--sizes": sizes}
    given = [option for option, value in only.items() if value]
    if given and not candidates:
        raise typer.BadParameter("goes with --candidates", param_hint=f"'{given[0]}'")
    if quick and ssh is None:
        raise typer.BadParameter("goes with --ssh; without it: python3 run.py --quick there", param_hint="'--quick'")
    opened, counts = Bundle.open(bundle), numbers(threads, "--threads")
    with tempfile.TemporaryDirectory(prefix="flyweight-candidates-") as folder:
        nets = _candidates(opened, Path(folder), models or [], sizes or []) if candidates else []
        write_kit(opened, out, variants=variant or (), candidates=nets, threads=counts, device=name, wheels=wheels)
    if ssh is None:
        _tell(out, None, as_json)
        return
    from flyweight.kit.ssh import Remote, run_there

    remote = Remote(ssh, python=python, config=ssh_config)
    run_there(out, remote, result, quick=quick, say=lambda line: print(line, file=sys.stderr, flush=True))
    _tell(out, result, as_json)


def _candidates(bundle: Bundle, folder: Path, models: list[str], sizes: list[int]) -> list[UntrainedFile]:
    need_train_extra()
    from flyweight.fit.kit import untrained_files

    return untrained_files(bundle, folder, models=models, sizes=sizes)


def _tell(out: Path, result: Path | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"kit": str(out), "size_bytes": out.stat().st_size, "result": result and str(result)}))
        return
    print(f"kit       {out}, {out.stat().st_size / 1e6:.1f} MB")
    if result is not None:
        print(f"result    {result}\nnext      flyweight device add {result}")
        return
    print(f"there     python3 -m zipfile -e {out.name} . && python3 kit/run.py --out result.json")
    print("then      flyweight device add result.json")
