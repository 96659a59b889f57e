"""`flyweight weights`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flyweight.cli.progress import need_train_extra

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Weights to begin with, also without a network.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


@app.command("list")
def list_all(
    pattern: Annotated[str, typer.Argument(help="Part of a name.")] = "",
    known: Annotated[bool, typer.Option("--known", help="List what is published, not what is here.")] = False,
    as_json: Json = False,
) -> None:
    """List the weights on this machine, or those that could be fetched, with the licence of each."""
    need_train_extra()
    if known:
        from flyweight.models.fetch import known_names, licence_of

        _show_known([{"name": name, "licence": licence_of(name)} for name in known_names(pattern)], as_json)
        return
    from flyweight.models.weights import folders, stored

    found = [_facts_or_reason(name, folder) for name, folder in stored() if pattern in name]
    if as_json:
        print(json.dumps(found))
        return
    for facts in found:
        if "broken" in facts:
            print(f"{facts['name']:<44} broken: {facts['broken']}")
            continue
        licence = facts["licence"] or "licence not stated"
        print(f"{facts['name']:<44} {facts['data']:<24} {licence:<14} {facts['size_bytes'] / 1e6:.1f} MB")
    if not found:
        print(f"none in {', '.join(map(str, folders()))}")
        print("next  flyweight weights list --known, then flyweight weights get NAME")


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="timm/NETWORK.TAG or torchvision/NETWORK.TAG.")],
    file: Annotated[
        Path | None, typer.Option(help="The publisher's file, carried here; nothing is downloaded.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch published weights into the cache. The only command that uses the network."""
    need_train_extra()
    from flyweight.models.fetch import fetch
    from flyweight.models.weights import cache_folder

    found = fetch(name, file)
    _done(found.save(cache_folder() / name), as_json)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name to give them.")],
    run: Annotated[Path, typer.Argument(help="A finished run of `flyweight train`.")],
    to: Annotated[Path | None, typer.Option(help="Folder to put them into; default: the cache.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "",
    half: Annotated[bool, typer.Option(help="Keep 16 bits of each number: half the file.")] = False,
    as_json: Json = False,
) -> None:
    """Keep the weights of a run of your own under a name."""
    need_train_extra()
    from flyweight.models.weights import Weights, cache_folder, check_name
    from flyweight.train.trained import Trained

    check_name(name)
    trained = Trained.load(run)
    data = f"{trained.data['name']}, {trained.data['train']:,} images"
    origin = {"fingerprint": trained.data.get("fingerprint"), "split": trained.split}
    found = Weights(name, trained.architecture, trained.weights, licence, "a run of flyweight train", data, origin)
    _done(found.save((to or cache_folder()) / name, half=half), as_json)


@app.command()
def vendor(
    names: Annotated[list[str], typer.Argument(help="Names of `flyweight weights list`.")],
    to: Annotated[Path, typer.Option(help="Folder to carry away; FLYWEIGHT_WEIGHTS names it on the other machine.")],
    as_json: Json = False,
) -> None:
    """Copy weights into a folder for a machine without a network."""
    need_train_extra()
    from flyweight.models.weights import vendor as copy

    for name in names:
        _done(copy(name, to), as_json)
    if not as_json:
        print(f"next  carry {to} there and set FLYWEIGHT_WEIGHTS to it")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Name in the cache.")]) -> None:
    """Remove weights from the cache."""
    need_train_extra()
    from flyweight.models.weights import forget

    forget(name)


def _done(folder: Path, as_json: bool) -> None:
    from flyweight.models.weights import facts_of

    facts = facts_of(folder)
    if as_json:
        print(json.dumps(facts))
        return
    print(f"{facts['name']}: {facts['architecture']['name']}, {facts['data']}, {facts['size_bytes'] / 1e6:.1f} MB")
    print(f"licence  {facts['licence'] or 'not stated'}\nfrom     {facts['source']}\nfolder   {folder}")
    network = facts["architecture"]["name"]
    print(f"next     flyweight train DATA --recipe finetune --set model.name={network} \\")
    print(f"           --set model.pretrained={facts['name']}")


def _facts_or_reason(name: str, folder: Path) -> dict[str, Any]:
    """Return the facts of a folder, or why it has none: one that is broken hides no other."""
    from flyweight.errors import ModelError
    from flyweight.models.weights import facts_of

    try:
        return facts_of(folder)
    except ModelError as error:
        return {"name": name, "folder": str(folder), "broken": error.what}


def _show_known(found: list[dict[str, str]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    for one in found:
        print(f"{one['name']:<56} {one['licence'] or 'licence not stated'}")
