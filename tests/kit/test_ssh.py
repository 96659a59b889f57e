"""`flyweight kit --ssh` against a real sshd, where another account has a Python of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.kit.bare import bare_python
from tests.kit.sshd import NAME, ROOM_MB, Server, find_sshd, has_namespaces, seen, serve

from flyweight.cli import run
from flyweight.errors import DeviceError
from flyweight.kit.ssh import Remote, run_there
from flyweight.measure.result import read_result

other_account = pytest.mark.skipif(
    not (os.getuid() == 0 and has_namespaces()) and os.environ.get("CI") != "true",
    reason="another account needs root and a mount namespace",
)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that another account can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="flyweight-ssh-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    sshd = find_sshd()
    if sshd is None:
        assert os.environ.get("CI") != "true", "CI installs openssh-server and openssh-client (.ci/apt.txt)"
        pytest.skip("there is no sshd: apt-get install openssh-server openssh-client")
    with serve(place, sshd) as started:
        yield started


@pytest.fixture(scope="module")
def there(place: Path, server: Server) -> Path:
    """The Python of the other machine."""
    return bare_python(place / "env", seen=seen(place))


@pytest.fixture
def pi(server: Server, there: Path) -> Remote:
    return Remote("pi", python=str(there), config=server.config)


def refused(kit: Path, remote: Remote, out: Path, say: Callable[[str], None] = lambda line: None) -> DeviceError:
    """Return the error of a run, which leaves no result."""
    with pytest.raises(DeviceError) as caught:
        run_there(kit, remote, out, quick=True, say=say)
    assert not out.exists()
    return caught.value


def there_now(server: Server, command: str) -> None:
    subprocess.run(["ssh", "-F", server.config, "pi", command], check=True, capture_output=True)


def left_in_tmp(server: Server) -> set[str]:
    """Return the folders of kits in /tmp: the account's, where it is another than that of the tests beside this one."""
    command = 'find /tmp -maxdepth 1 -name "flyweight-kit-*" -user $(id -u)'
    return set(
        subprocess.run(
            ["ssh", "-F", server.config, "pi", command], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IEXEC | stat.S_IXGRP | stat.S_IXOTH)
    return path


def test_one_command_copies_runs_fetches_and_leaves_nothing(
    bundle: Path, pi: Remote, server: Server, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = left_in_tmp(server)
    words = ["kit", str(bundle), "--out", str(tmp_path / "kit.zip"), "--ssh", "pi", "--ssh-config", str(pi.config)]
    words += ["--python", pi.python, "--result", str(tmp_path / "result.json"), "--quick", "--name", "pi4", "--json"]
    assert run(words) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["result"] == str(tmp_path / "result.json")
    assert "timing variants: 3 of 3" in said.err
    found = read_result(tmp_path / "result.json")
    assert found.models[0].budget_values()["latency_p50"] is not None
    assert found.device == "pi4"
    assert left_in_tmp(server) <= before


@other_account
def test_it_is_another_account_there(server: Server) -> None:
    said = subprocess.run(
        ["ssh", "-F", server.config, "pi", "id -un; id -u"], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [NAME, "54321"]
    assert NAME not in Path("/etc/passwd").read_text()


def test_a_key_that_it_does_not_know_is_said_and_no_password_is_asked(
    kit: Path, server: Server, tmp_path: Path
) -> None:
    error = refused(kit, Remote("stranger", config=server.config), tmp_path / "r.json")
    assert "refuses the key, and passwords are not asked for" in error.what
    assert "ssh-copy-id stranger" in error.do


def test_another_host_key_is_said(kit: Path, server: Server, tmp_path: Path) -> None:
    assert (
        "host key is unknown or another one"
        in refused(kit, Remote("unknown", config=server.config), tmp_path / "r.json").what
    )


def test_no_server_and_no_such_host_are_said(kit: Path, server: Server, tmp_path: Path) -> None:
    assert "nothing answers ssh" in refused(kit, Remote("closed", config=server.config), tmp_path / "r.json").what
    nowhere = Remote("nowhere.invalid", config=server.config)
    assert "there is no such host" in refused(kit, nowhere, tmp_path / "r.json").what


@pytest.mark.parametrize("target", ["-oProxyCommand=touch x", "pi@host:2222", "", "pi host"])
def test_what_is_no_target_is_refused_before_ssh_sees_it(target: str) -> None:
    with pytest.raises(DeviceError, match="is no USER@HOST"):
        Remote(target)


def test_no_python_there_is_said(kit: Path, server: Server, tmp_path: Path) -> None:
    error = refused(kit, Remote("pi", python="python9", config=server.config), tmp_path / "r.json")
    assert "pi has no python9 that runs" in error.what
    assert "--python" in error.do


def test_a_python_that_is_too_old_is_named_with_its_version(
    kit: Path, server: Server, place: Path, there: Path, tmp_path: Path
) -> None:
    # No old Python is at hand: this one, told by its own start-up file that it is 3.9.
    old = place / "old"
    shutil.copytree(place / "env", old, symlinks=True)
    (next(old.glob("lib/python*/site-packages")) / "age.pth").write_text("import sys; sys.version_info = (3, 9, 2)\n")
    error = refused(kit, Remote("pi", python=str(old / "bin/python"), config=server.config), tmp_path / "r.json")
    assert "has Python 3.9.2" in error.what
    assert "3.11" in error.what


def test_missing_packages_come_with_the_line_that_installs_them_there(
    kit: Path, server: Server, place: Path, tmp_path: Path
) -> None:
    python = bare_python(place / "empty", [], seen=seen(place))
    error = refused(kit, Remote("pi", python=str(python), config=server.config), tmp_path / "r.json")
    assert "on pi: missing on this machine: numpy>=2.0, onnxruntime" in error.what
    assert f'{python} -m pip install "numpy>=2.0"' in error.do


@other_account
def test_a_disk_without_room_is_said_before_anything_is_copied(
    kit: Path, server: Server, place: Path, there: Path, tmp_path: Path
) -> None:
    # Not quite full: Python looks for another folder where not a byte can be written.
    there_now(server, f"dd if=/dev/zero of={place}/small/filler bs=1M count={ROOM_MB - 1}")
    python = script(place / "in-small", f'#!/bin/sh\nexport TMPDIR={place}/small\nexec {there} "$@"\n')
    error = refused(kit, Remote("pi", python=str(python), config=server.config), tmp_path / "r.json")
    there_now(server, f"rm {place}/small/filler")
    assert "the disk of pi is full: the kit needs 1." in error.what


@other_account
def test_a_disk_that_fills_up_meanwhile_is_said(
    kit: Path, server: Server, place: Path, there: Path, tmp_path: Path
) -> None:
    fills = f'[ "$1" = - ] || dd if=/dev/zero of={place}/small/filler bs=1M count=1000 2>/dev/null'
    python = script(place / "fills", f'#!/bin/sh\n{fills}\nexport TMPDIR={place}/small\nexec {there} "$@"\n')
    error = refused(kit, Remote("pi", python=str(python), config=server.config), tmp_path / "r.json")
    there_now(server, f"rm {place}/small/filler")
    assert "No space left" in error.what


def process_there(server: Server, word: str) -> int:
    """Return the process of the account whose command line has `word`."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if word in line:
            return int(folder.name)
    raise LookupError(word)


def test_a_kit_that_is_killed_half_way_leaves_no_half_result(
    kit: Path, pi: Remote, server: Server, tmp_path: Path
) -> None:
    def kill(line: str) -> None:
        if line.startswith("timing variants: 1 "):
            os.kill(process_there(server, "kit/run.py"), signal.SIGKILL)

    error = refused(kit, pi, tmp_path / "r.json", kill)
    assert "killed half-way on pi" in error.what


def test_a_connection_that_is_lost_half_way_is_said(kit: Path, pi: Remote, server: Server, tmp_path: Path) -> None:
    def cut(line: str) -> None:
        if line.startswith("timing variants: 1 "):
            os.kill(process_there(server, f"sshd: {server.account}@notty"), signal.SIGKILL)

    error = refused(kit, pi, tmp_path / "r.json", cut)
    assert "the connection to pi was lost" in error.what
