"""A real sshd on a free port, with keys of its own, that lets one account in: no system service, no system file.

As root it runs in a mount namespace of its own, where /etc/passwd has one more account and a small file system lies;
elsewhere the account is one's own.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAME, UID = "flyweight-pi", 54321
ROOM_MB = 16  # of the small file system


@dataclass(frozen=True)
class Server:
    """What a client needs: hosts of an ssh config.

    Attributes:
        config: For `ssh -F`: `pi` gets in, `stranger` has a wrong key, `unknown` another host key, `closed` no server.
        account: That `pi` becomes.
        process: The process id of sshd.
        home: Of the account.
    """

    config: Path
    account: str
    process: int
    home: Path


def find_sshd() -> Path | None:
    """Return sshd, or None."""
    found = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
    return Path(found) if found and shutil.which("ssh") and shutil.which("scp") else None


@contextlib.contextmanager
def serve(folder: Path, sshd: Path) -> Iterator[Server]:
    """Run the server while the block lasts. `folder` must be one that other accounts can reach.

    As root, `seen(folder)` says where this Python and its packages lie for the account.
    """
    root = os.getuid() == 0 and has_namespaces()
    account = NAME if root else getpass.getuser()
    home = folder / "home" if root else Path.home()
    if root:
        home.mkdir()
        shutil.chown(home, UID, UID)
    for key in ("host", "user", "stranger", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    port = free_port()
    (folder / "sshd.conf").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nAuthorizedKeysFile {folder}/authorized\n"
        f"Subsystem sftp internal-sftp\nSetEnv LD_LIBRARY_PATH={folder}/base/lib\n"
    )
    line: list[str] = [str(sshd), "-D", "-e", "-f", str(folder / "sshd.conf")]
    with (
        socket.socket() as nobody,
        (folder / "log").open("wb") as log,
        subprocess.Popen(in_namespace(folder, home, line) if root else line, stdout=log, stderr=log) as process,
    ):
        try:
            nobody.bind(("127.0.0.1", 0))  # and never listens: the port is nobody else's either
            config = write_config(folder, port, nobody.getsockname()[1], account)
            wait_for(port, process, folder / "log")
            yield Server(config, account, process.pid, home)
        finally:
            process.kill()


def has_namespaces() -> bool:
    """Say whether a process of this account may have mounts of its own; containers often forbid it even to root."""
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def in_namespace(folder: Path, home: Path, line: list[str]) -> list[str]:
    """Return the command that runs `line` where the account exists, and its /tmp is small."""
    own = f"{NAME}:x:{UID}:{UID}::{home}:/bin/sh\n"
    (folder / "passwd").write_text(Path("/etc/passwd").read_text() + own)
    (folder / "small").mkdir()
    places = seen(folder)
    for place in places.values():
        place.mkdir()
    steps = [
        *(f"mount --bind {root} {place}" for root, place in places.items()),
        f"mount --bind {folder}/passwd /etc/passwd",
        "mount -t tmpfs -o mode=755 none /run",
        "mkdir /run/sshd",
        f"mount -t tmpfs -o mode=1777,size={ROOM_MB}m none {folder}/small",
        'exec "$@"',
    ]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(steps), "sh", *line]


def seen(folder: Path) -> dict[str, Path]:
    """Return where the account finds this Python, which may lie in a home that is closed to it."""
    places = {sys.prefix: folder / "packages", sys.base_prefix: folder / "base"}
    return places if os.getuid() == 0 and has_namespaces() else {}


def write_config(folder: Path, port: int, closed: int, account: str) -> Path:
    """Write the client's side; return the file."""
    kind, key, _ = (folder / "host.pub").read_text().split(maxsplit=2)
    other = (folder / "other.pub").read_text().split()[1]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {kind} {key}\n[127.0.0.1]:{closed} {kind} {key}\n")
    (folder / "wrong").write_text(f"[127.0.0.1]:{port} {kind} {other}\n")
    hosts = [("pi", port, "user", "known"), ("stranger", port, "stranger", "known"), ("unknown", port, "user", "wrong"),
             ("closed", closed, "user", "known")]  # fmt: skip
    text = "".join(
        f"Host {name}\n  HostName 127.0.0.1\n  Port {at}\n  User {account}\n  IdentityFile {folder}/{identity}\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/{known}\n  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        for name, at, identity, known in hosts
    )
    (folder / "config").write_text(text)
    return folder / "config"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise TimeoutError(log.read_text())
