"""The command line: each file parses one group of commands, calls one function and prints. Imports no torch."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from flyweight import __version__
from flyweight.errors import FlyweightError
from flyweight.files import output_error

# command: (module, name in it, one line of help). Modules are imported when their command is called.
COMMANDS = {
    "fit": ("flyweight.cli.fit", "fit", "Labelled images and a budget in, a proven bundle out: the whole way."),
    "data": ("flyweight.cli.data", "app", "Check a data set before training on it."),
    "train": ("flyweight.cli.train", "train", "Train one recipe in a folder; stop and continue at will."),
    "recipe": ("flyweight.cli.recipe", "app", "List and show the shipped recipes."),
    "reproduce": ("flyweight.cli.reproduce", "reproduce", "Run a published study again, arm by arm, over seeds."),
    "compare": ("flyweight.cli.compare", "compare", "Compare networks on your data: trained alike, timed, tested."),
    "tune": ("flyweight.cli.tune", "tune", "Search for the best recipe within a budget: many short runs, few long."),
    "ablate": (
        "flyweight.cli.ablate",
        "ablate",
        "Say which parts of a recipe help: with and without each, over seeds.",
    ),
    "stability": ("flyweight.cli.stability", "app", "Map which learning rates train, which are slow, which diverge."),
    "models": ("flyweight.cli.models", "models", "List the networks of the catalogue and what they cost."),
    "weights": ("flyweight.cli.weights", "app", "List, fetch and carry pretrained weights."),
    "audit": ("flyweight.cli.audit", "audit", "Recompute what published tables claim about networks."),
    "compress": (
        "flyweight.cli.compress",
        "compress",
        "Prune, distil, quantize … a run, and hold a trial: ship or do not ship.",
    ),
    "quantize": ("flyweight.cli.compress", "quantize", "Add an int8, fp16 or palette file to a bundle, if it is fit."),
    "trial": ("flyweight.cli.compress", "trial", "Hold one variant of a bundle against another: ship or do not ship."),
    "export": ("flyweight.cli.export", "export", "Turn a finished run into a bundle that runs without torch."),
    "convert": ("flyweight.cli.convert", "convert", "Add a variant to a bundle: another format or precision."),
    "sources": ("flyweight.cli.sources", "sources", "Write a bundle as C for microcontrollers, ready to compile."),
    "predict": ("flyweight.cli.predict", "predict", "Classify files, folders or standard input with a bundle."),
    "verify": ("flyweight.cli.verify", "verify", "Recompute a bundle's hashes, golden vectors and accuracy."),
    "measure": ("flyweight.cli.measure", "measure", "Time a bundle on this machine: latency, throughput, memory."),
    "reject": (
        "flyweight.cli.reject",
        "reject",
        "Say when a bundle gives no answer, and what that refuses.",
    ),
    "web": ("flyweight.cli.web", "web", "Write a page that runs a bundle in a browser, without a network."),
    "serve": ("flyweight.cli.serve", "serve", "Answer over HTTP: images in, classes out, with the same page in front."),
    "report": ("flyweight.cli.report", "report", "Rebuild the HTML page of a report.json."),
    "kit": ("flyweight.cli.kit", "kit", "Pack what measures a bundle on another machine; run it there by ssh."),
    "device": ("flyweight.cli.device", "app", "The machines that budgets may name."),
    "schema": ("flyweight.cli.schema", "schema", "Print the JSON Schema of a file or of a command's --json."),
    "doctor": ("flyweight.cli.doctor", "doctor", "Show what this machine has and what is missing."),
}


def main() -> None:
    """Run the command line and exit: 0 done, 1 you can act, 2 usage, 70 our bug, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors are printed to standard error in three lines."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"flyweight {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        return _unknown(arguments[0])
    try:
        return _run_command(arguments[0], arguments[1:])
    except FlyweightError as error:
        return _complain(error, as_json="--json" in arguments)
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - nothing may be written at exit any more
        return 0
    except OSError as error:
        return _complain(output_error(Path(str(error.filename or "a file")), error), as_json="--json" in arguments)
    except Exception:
        traceback.print_exc()
        print("\nthis is a bug of Flyweight, not yours: please report the lines above", file=sys.stderr)
        return 70


def overview() -> str:
    """Return the help page of the whole program."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, (_, _, text) in COMMANDS.items())
    return f"""Usage: flyweight COMMAND [OPTIONS]

Image classifiers that must be small and fast. Start with:
  flyweight fit FOLDER --budget "latency_p90<5ms,size<1MB"

Commands (flyweight COMMAND --help says more):
{lines}

  --version  print the version
  --help     this page"""


def _run_command(name: str, arguments: list[str]) -> int:
    import typer

    module, attribute, text = COMMANDS[name]
    found: Any = getattr(importlib.import_module(module), attribute)
    app = found if isinstance(found, typer.Typer) else typer.Typer(add_completion=False)
    if app is not found:
        app.command(help=inspect.getdoc(found) or text)(found)
    command = typer.main.get_command(app)
    try:
        result = command.main(arguments, prog_name=f"flyweight {name}", standalone_mode=False)
        if result == 130:  # typer's word for Ctrl-C
            raise KeyboardInterrupt
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.Exit as stop:
        return stop.exit_code
    except typer.TyperException as error:
        return _usage(error, name)
    return result if isinstance(result, int) else 0


def _usage(error: Any, name: str) -> int:
    what = error.format_message() if hasattr(error, "format_message") else str(error)
    print(
        f"error: {' '.join(what.split())}\n  do: see flyweight {name} --help\n  more: docs/errors.md#errors",
        file=sys.stderr,
    )
    return int(error.exit_code)


def _unknown(name: str) -> int:
    close = difflib.get_close_matches(name, COMMANDS, n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else "see flyweight --help"
    print(f"error: there is no command {name!r}\n  do: {hint}\n  more: flyweight --help", file=sys.stderr)
    return 2


def _complain(error: FlyweightError, *, as_json: bool) -> int:
    if as_json:
        import json

        print(json.dumps(error.as_dict(), ensure_ascii=False))
    print(f"error: {error.what}\n  do: {error.do}\n  more: {error.more}", file=sys.stderr)
    return error.exit_code
