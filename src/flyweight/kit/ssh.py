"""Run a kit on another machine in one go, with the system's own ssh and scp: copy, run, fetch, clean up.

Keys, ports and jump hosts are ssh's business (~/.ssh/config); no password is ever asked for.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.errors import DeviceError
from flyweight.files import write_bytes
from flyweight.kit.start import OLDEST
from flyweight.measure.result import DeviceResult, read_result

Say = Callable[[str], None]
MORE = "docs/devices.md#by-ssh"
MARK = "flyweight-probe "  # what a login script prints before is not the answer
# Old Pythons must be able to read it, to be told so.
PROBE = f"""
import json, os, shutil, sys, tempfile
found = {{"python": "%d.%d.%d" % sys.version_info[:3], "new_enough": sys.version_info >= {OLDEST!r}}}
if found["new_enough"]:
    try:
        found["folder"] = tempfile.mkdtemp(prefix="flyweight-kit-")
        found["free"] = shutil.disk_usage(found["folder"]).free
    except OSError as error:
        found["problem"] = str(error)
print({MARK!r} + json.dumps(found))
"""
LOST, NOT_FOUND, KILLED = 255, (126, 127), 137
ROOM = 1_000_000  # bytes for what is written there besides the files of the kit
# What ssh says, and what it means.
REFUSALS = {
    "could not resolve": ("there is no such host", "check the name; ssh {target} must work"),
    "connection refused": ("nothing answers ssh on its port", "start ssh there, or set the Port in ~/.ssh/config"),
    "no route to host": ("there is no route to it", "check that it is switched on and in this network"),
    "unreachable": ("there is no route to it", "check that it is switched on and in this network"),
    "timed out": ("it does not answer", "check that it is switched on and in this network"),
    "host key verification failed": (
        "its host key is unknown or another one than before",
        "connect once by hand, and compare the key: ssh {target}",
    ),
    "permission denied": (
        "it refuses the key, and passwords are not asked for",
        "put your key there (ssh-copy-id {target}) or load it into the agent (ssh-add)",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Remote:
    """A machine that ssh reaches.

    Attributes:
        target: USER@HOST, or a name of ~/.ssh/config.
        python: The Python there.
        config: A file for `ssh -F`.
    """

    target: str
    python: str = "python3"
    config: Path | None = None

    def __post_init__(self) -> None:
        if not self.target or self.target.startswith("-") or any(sign in self.target for sign in ": \t\n"):
            raise DeviceError(
                f"{self.target!r} is no USER@HOST", do="write it as pi@192.168.1.20; the port goes into ~/.ssh/config"
            )

    def options(self) -> list[str]:
        """Return the options that ssh and scp have in common."""
        chosen = ["BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15", "ServerAliveCountMax=4"]
        return [word for one in chosen for word in ("-o", one)] + (["-F", str(self.config)] if self.config else [])


def run_there(kit: Path, remote: Remote, out: Path, *, quick: bool = False, say: Say) -> DeviceResult:
    """Run the kit on the remote machine, write its result to `out` and return it.

    Args:
        quick: As `run.py --quick`.
        say: Called with each line that the machine prints meanwhile.

    Raises:
        DeviceError: It cannot be reached, has no or too old a Python, lacks packages or room, was cut off half-way, or
            the bundle does not verify there.
        OutputError: `out` cannot be written.
    """
    folder = _prepare(kit, remote)
    try:
        _copy(remote, [str(kit), f"{remote.target}:{folder}/kit.zip"], f"copying the kit to {remote.target}", folder)
        said, status = _run(remote, folder, quick, say)
        if status == 1 and "does not verify" in said:
            _fetch(remote, folder, out)  # it is evidence, if no measurement
        if status != 0:
            raise _failed(remote, said, status)
        return _fetch(remote, folder, out)
    finally:
        subprocess.run(
            _ssh(remote, f"rm -rf {shlex.quote(folder)}"), capture_output=True, stdin=subprocess.DEVNULL, check=False
        )


def _prepare(kit: Path, remote: Remote) -> str:
    """Return a fresh folder there, once Python and room are known to do."""
    done = _called(_ssh(remote, f"{shlex.quote(remote.python)} -"), PROBE)
    if done.returncode in NOT_FOUND:
        raise DeviceError(
            f"{remote.target} has no {remote.python} that runs: {_last(done.stderr)}",
            do="install Python 3.11 or newer there, or name it with --python /path/to/python3",
            more=MORE,
        )
    line = next((line for line in done.stdout.splitlines() if line.startswith(MARK)), None)
    if done.returncode != 0 or line is None:
        raise _refused(remote, done, f"{remote.python} on {remote.target} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(line.removeprefix(MARK))
    if not found["new_enough"]:
        raise DeviceError(
            f"{remote.target} has Python {found['python']} as {remote.python}; the kit needs "
            f"{'.'.join(map(str, OLDEST))} or newer",
            do="install a newer Python there, and name it with --python /path/to/python3.11",
            more=MORE,
        )
    if "problem" in found:
        raise DeviceError(
            f"{remote.target} has no folder for the kit: {found['problem']}", do="free some space there", more=MORE
        )
    with zipfile.ZipFile(kit) as archive:
        needed = kit.stat().st_size + sum(member.file_size for member in archive.infolist()) + ROOM
    if found["free"] < needed:
        _called(_ssh(remote, f"rm -rf {shlex.quote(found['folder'])}"))
        raise _full(remote, found["folder"], needed, found["free"])
    return str(found["folder"])


def _run(remote: Remote, folder: str, quick: bool, say: Say) -> tuple[str, int]:
    """Return what the kit printed there, and its exit status."""
    python = shlex.quote(remote.python)
    start = f"{python} kit/run.py --out result.json{' --quick' if quick else ''}"
    # Not the shell's last command: a runner that is killed then shows as 137, a lost connection as 255.
    script = f"cd {shlex.quote(folder)} && {python} -m zipfile -e kit.zip . && {start}; status=$?; exit $status"
    said: list[str] = []
    line = _ssh(remote, f"sh -c {shlex.quote(script)}")
    with subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for text in process.stdout:
            said.append(text.rstrip())
            say(said[-1])
    return "\n".join(said), process.returncode


def _failed(remote: Remote, said: str, status: int) -> DeviceError:
    lines = said.splitlines()
    errors = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    if status == LOST:
        return DeviceError(
            f"the connection to {remote.target} was lost while the kit ran: {_last(said)}",
            do="run the same command again when it is back",
            more=MORE,
        )
    if errors:
        advice = lines[errors[-1] + 1].strip().removeprefix("do: ") if errors[-1] + 1 < len(lines) else ""
        what = lines[errors[-1]].removeprefix("error: ")
        return DeviceError(f"on {remote.target}: {what}", do=advice or "mend that there, and run again", more=MORE)
    if status == KILLED:
        return DeviceError(
            f"the kit was killed half-way on {remote.target}, most likely for want of memory, and nothing was measured",
            do="close other programs there, or make a kit of fewer or smaller networks, and run again",
            more=MORE,
        )
    return DeviceError(
        f"the kit ended with {status} on {remote.target}: {_last(said)}",
        do="run it there by hand to see more",
        more=MORE,
    )


def _fetch(remote: Remote, folder: str, out: Path) -> DeviceResult:
    with tempfile.TemporaryDirectory(prefix="flyweight-kit-") as here:
        file = Path(here) / "result.json"
        _copy(remote, [f"{remote.target}:{folder}/result.json", str(file)], f"fetching from {remote.target}", folder)
        result = read_result(file)
        write_bytes(out, file.read_bytes())
    return result


def _copy(remote: Remote, paths: list[str], what: str, folder: str) -> None:
    done = _called(["scp", "-q", *remote.options(), *paths])
    if done.returncode == 0:
        return
    size = Path(paths[0]).stat().st_size if Path(paths[0]).is_file() else 0
    free = _free(remote, folder)
    if free is not None and free < size:
        # sftp has no word for a full disk: it says "Failure".
        raise _full(remote, folder, size, free)
    raise _refused(remote, done, what)


def _free(remote: Remote, folder: str) -> int | None:
    code = f"import shutil; print({MARK!r} + str(shutil.disk_usage({folder!r}).free))"
    done = _called(_ssh(remote, f"{shlex.quote(remote.python)} -"), code)
    line = next((line for line in done.stdout.splitlines() if line.startswith(MARK)), None)
    return None if line is None else int(line.removeprefix(MARK))


def _full(remote: Remote, folder: str, needed: int, free: int) -> DeviceError:
    return DeviceError(
        f"the disk of {remote.target} is full: the kit needs {needed / 1e6:.1f} MB at {folder}, and "
        f"{free / 1e6:.1f} MB are free",
        do="free some space there, or make a kit of fewer networks; TMPDIR there names another place",
        more=MORE,
    )


def _refused(remote: Remote, done: subprocess.CompletedProcess[str], what: str) -> DeviceError:
    """Say what ssh's own words mean; those of a program there are handed on."""
    stderr = done.stderr
    for sign, (meaning, advice) in REFUSALS.items() if done.returncode == LOST else ():
        if sign in stderr.lower():
            said = next(line for line in stderr.splitlines() if sign in line.lower())
            return DeviceError(
                f"cannot reach {remote.target}: {meaning} (ssh says: {said})",
                do=advice.format(target=remote.target),
                more=MORE,
            )
    return DeviceError(f"{what}: {_last(stderr)}", do=f"try it by hand: ssh {remote.target}", more=MORE)


def _ssh(remote: Remote, command: str) -> list[str]:
    return ["ssh", *remote.options(), remote.target, command]


def _called(line: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(line, input=stdin, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError as error:
        raise DeviceError(
            f"this machine has no {line[0]!r}",
            do="install it (apt-get install openssh-client), or copy the kit there by hand and run it",
            more=MORE,
        ) from error


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
