"""The database of a search: an Optuna study, so that its dashboard opens it, and who is at work on what.

A search is run by any number of processes on any number of machines. Each takes its decisions alone, while it holds
the one lock of the study, and claims what it is going to train, so that nothing is trained twice. A claim whose holder
died is taken over: at once on the same machine, else when its beat has stood still for `STALE_SECONDS`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Column, Float, Integer, MetaData, String, Table, UniqueConstraint

from flyweight.errors import OutputError, RecipeError
from flyweight.files import Lease, output_error

STALE_SECONDS = 60.0
BEAT_SECONDS = 5.0
LOCK = "decide"
LOCK_PATIENCE = 600.0  # s; a decision may time a network, which takes seconds
WAIT_SECONDS = 0.2
BUSY_SECONDS = 120.0  # s that a locked SQLite file is waited for
ADVISORY_LOCK = 0x666C79  # any number that all of ours agree on
FACTS = "flyweight"  # study attribute: what the search is

_TABLES = MetaData()
_CLAIMS = Table(
    "flyweight_claims",
    _TABLES,
    Column("id", Integer, primary_key=True),
    Column("study", String(256), nullable=False),
    Column("work", String(64), nullable=False),
    Column("owner", String(256), nullable=False),
    Column("beat", Integer, nullable=False),
    Column("since", Float, nullable=False),
    Column("epochs", Integer, nullable=False, server_default="0"),
    UniqueConstraint("study", "work"),
)


@dataclass(frozen=True)
class Owner:
    """A process: the machine, its number there, and when it started, so that a number used again is another process."""

    host: str
    pid: int
    started: str

    @classmethod
    def me(cls) -> Owner:
        """Return this process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Owner:
        """Return a process of this machine."""
        return cls(socket.gethostname(), pid, _started(pid))

    @classmethod
    def parse(cls, text: str) -> Owner:
        """Return the process that `str` wrote."""
        host, pid, started = text.rsplit(":", 2)
        return cls(host, int(pid), started)

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.started}"

    @property
    def here(self) -> bool:
        """True where it is a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def gone(self) -> bool:
        """True where it is a process of this machine that has ended."""
        return self.here and _started(self.pid) != self.started


def _started(pid: int) -> str:
    """Return the start time of a process as the system counts it; "" where there is no such process."""
    import psutil

    if sys.platform == "linux":  # clock ticks since boot: what psutil makes of them moves with the clock
        try:
            after_name = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if after_name[0] == "Z" else after_name[19]
    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return ""


@dataclass(frozen=True)
class Claim:
    """What a process is at.

    Attributes:
        work: `3/0` is trial 3 on rung 0; `decide` is the lock.
        beat: How often it has said that it is still at it.
        dead: True where it has died.
        outlived: True where whoever asks, or what began it, was there before it was claimed.
        epochs: How far its training had come, as it said itself: the files may lie on another machine.
    """

    work: str
    owner: Owner
    beat: int
    dead: bool
    outlived: bool
    epochs: int


@dataclass
class Store:
    """A study in its database; open it with `open_store`."""

    url: str
    study: optuna.Study
    engine: sqlalchemy.Engine
    owner: Owner
    began: float
    _seen: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)

    def trials(self) -> list[FrozenTrial]:
        """Return every trial, by number."""
        return self.study.get_trials(deepcopy=False)

    def add(self, trial: FrozenTrial) -> int:
        """Add a trial that is to be trained; return its number. The caller holds the lock."""
        with _explained(self.url):
            self.study.add_trial(trial)
            return len(self.study.get_trials(deepcopy=False)) - 1

    def note(self, number: int, key: str, value: Any) -> None:
        """Write an attribute of a trial."""
        with _explained(self.url):
            self.study._storage.set_trial_user_attr(self._id(number), key, value)

    def report(self, number: int, step: int, value: float) -> None:
        """Write an intermediate value, for the dashboard; a study with several objectives has none."""
        if len(self.study.directions) == 1:
            with _explained(self.url):
                self.study._storage.set_trial_intermediate_value(self._id(number), step, value)

    def end(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        """Set how a trial ended."""
        with _explained(self.url):
            self.study.tell(number, values=values, state=state, skip_if_finished=True)

    def _id(self, number: int) -> int:
        return self.study._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)

    def claims(self) -> list[Claim]:
        """Return who is, or was when it died, at work on what."""
        with _explained(self.url), self.engine.begin() as connection:
            rows = connection.execute(_CLAIMS.select().where(_CLAIMS.c.study == self.study.study_name)).all()
        return [
            Claim(
                work=row.work,
                owner=Owner.parse(row.owner),
                beat=row.beat,
                dead=self._dead(row),
                outlived=self.began < row.since,
                epochs=row.epochs,
            )
            for row in rows
        ]

    def drop(self, claim: Claim) -> None:
        """Drop the claim of one that died, unless its beat goes on."""
        its = (_CLAIMS.c.study == self.study.study_name, _CLAIMS.c.work == claim.work)
        same = (_CLAIMS.c.owner == str(claim.owner), _CLAIMS.c.beat == claim.beat)
        with _explained(self.url), self.engine.begin() as connection:
            connection.execute(_CLAIMS.delete().where(*its, *same))

    def _dead(self, row: Any) -> bool:
        owner = Owner.parse(row.owner)
        if owner.here:
            return owner.gone
        key, now = (row.work, row.owner), time.monotonic()
        beat: int = row.beat
        seen, since = self._seen.get(key, (beat, now))
        self._seen[key] = (beat, since if seen == beat else now)
        since = self._seen[key][1]
        return now - since > STALE_SECONDS

    def claim(self, work: str) -> bool:
        """Claim work for this process; False where another has it."""
        row = {"study": self.study.study_name, "work": work, "owner": str(self.owner), "beat": 0, "since": time.time()}
        try:
            with _explained(self.url), self.engine.begin() as connection:
                connection.execute(_CLAIMS.insert().values(**row))
        except sqlalchemy.exc.IntegrityError:
            return False
        return True

    @contextlib.contextmanager
    def beating(self, work: str) -> Iterator[Event]:
        """Keep a claim alive meanwhile; the event is set when it was taken over all the same."""
        lost, ended = Event(), Event()

        def beats() -> None:
            while not ended.wait(BEAT_SECONDS):
                with contextlib.suppress(OutputError):  # a database that is away for a moment; the claim may be lost
                    if not self.beat(work):
                        lost.set()

        thread = Thread(target=beats, daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            ended.set()
            thread.join()

    def beat(self, work: str, epochs: int | None = None) -> bool:
        """Say that this process is still at it, and how far; False where the claim was taken over."""
        far = {} if epochs is None else {"epochs": epochs}
        mine = (_CLAIMS.c.study == self.study.study_name, _CLAIMS.c.work == work, _CLAIMS.c.owner == str(self.owner))
        with _explained(self.url), self.engine.begin() as connection:
            done = connection.execute(_CLAIMS.update().where(*mine).values(beat=_CLAIMS.c.beat + 1, **far))
        changed: int = done.rowcount
        return changed == 1

    def release(self, work: str) -> None:
        """Give a claim of this process back."""
        mine = (_CLAIMS.c.study == self.study.study_name, _CLAIMS.c.work == work, _CLAIMS.c.owner == str(self.owner))
        with _explained(self.url), self.engine.begin() as connection:
            connection.execute(_CLAIMS.delete().where(*mine))

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Hold the lock of the study: one process at a time reads the trials and decides what comes next.

        Raises:
            OutputError: Another process held it for too long.
        """
        until = time.monotonic() + LOCK_PATIENCE
        while not self.claim(LOCK):
            holder = next((claim for claim in self.claims() if claim.work == LOCK), None)
            if holder is None:
                continue
            if holder.dead:
                self.drop(holder)
                continue
            if time.monotonic() > until:
                raise OutputError(
                    f"another process ({holder.owner}) has held the search for {LOCK_PATIENCE:g} s",
                    do="look whether that machine still runs; end it, and start this command again",
                )
            time.sleep(WAIT_SECONDS)
        try:
            with self.beating(LOCK):
                yield
        finally:
            self.release(LOCK)


Direction = Literal["minimize", "maximize"]


def open_store(
    url: str, name: str, *, facts: Mapping[str, Any], directions: Sequence[Direction], began: float | None = None
) -> Store:
    """Open a study, or create it.

    Args:
        url: SQLAlchemy's: `sqlite:///runs/tune/study.db`, `postgresql+psycopg://user@host/database`.
        facts: What the search is; a study that exists must have the same.
        directions: `maximize` or `minimize` for each objective.
        began: Wall-clock time (`time.time`) since when this process is there, or the one that began it; None: now.

    Raises:
        RecipeError: The study was begun with other facts: data, recipe, space, code.
        OutputError: The database cannot be opened or written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if (path := _sqlite_file(url)) is not None:
        _make_folder(path.parent)
    with _explained(url), _alone(url):
        storage = optuna.storages.RDBStorage(url, engine_kwargs=_engine_options(url))
        study = optuna.create_study(storage=storage, study_name=name, directions=list(directions), load_if_exists=True)
        _TABLES.create_all(storage.engine, checkfirst=True)
        _add_epochs(storage.engine)
        there = study.user_attrs.get(FACTS)
        if there is None:
            study.set_user_attr(FACTS, dict(facts))
            there = dict(facts)
    _same(dict(facts), there, name, url)
    return Store(url, study, storage.engine, Owner.me(), time.time() if began is None else began)


def _add_epochs(engine: sqlalchemy.Engine) -> None:
    """Give the table of a study that was begun before claims said how far they are the column for it."""
    if _CLAIMS.c.epochs.name not in {column["name"] for column in sqlalchemy.inspect(engine).get_columns(_CLAIMS.name)}:
        with engine.begin() as connection:
            added = f"ALTER TABLE {_CLAIMS.name} ADD COLUMN epochs INTEGER NOT NULL DEFAULT 0"
            connection.execute(sqlalchemy.text(added))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def _same(facts: Mapping[str, Any], there: Mapping[str, Any], name: str, url: str) -> None:
    differ = [key for key in facts if there.get(key) != facts[key]]
    if differ:
        shown = "; ".join(f"{key}: {_short(there.get(key))} there, {_short(facts[key])} here" for key in differ)
        raise RecipeError(
            f"the study {name!r} in {without_password(url)} was begun with another {', '.join(differ)} ({shown})",
            do="give what it was begun with, or another --name or --out",
            more="docs/tuning.md#going-on",
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def without_password(url: str) -> str:
    """Return a database URL as it may be shown."""
    return re.sub(r"(://[^:/@]+):[^@]*@", r"\1:***@", url)


def _engine_options(url: str) -> dict[str, Any]:
    return {"connect_args": {"timeout": BUSY_SECONDS}} if url.startswith("sqlite") else {"pool_pre_ping": True}


@contextlib.contextmanager
def _alone(url: str) -> Iterator[None]:
    """Keep other processes from making the tables, or the study, at the same moment: neither database does of itself.

    Both locks are gone when this process is: one is a file's, the other that of a session of PostgreSQL.
    """
    if (path := _sqlite_file(url)) is not None:
        lock = path.with_name(f".{path.name}.opening")
        try:
            lease = Lease(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise output_error(lock, error) from error
        try:
            yield
        finally:
            lease.close()
    elif url.startswith("postgresql"):
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
            yield
    else:
        yield


def _sqlite_file(url: str) -> Path | None:
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn what the database cannot do into an error that says what to do."""
    try:
        yield
    except (sqlalchemy.exc.OperationalError, optuna.exceptions.StorageInternalError) as error:
        cause = str(getattr(error, "orig", None) or error.__cause__ or error).splitlines()[0]
        raise OutputError(
            f"the database of the study, {without_password(url)}, cannot be used: {cause}",
            do="free the disk, or start the database server again; the same command continues",
        ) from error
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ImportError) as error:
        raise OutputError(
            f"--storage {without_password(url)!r} is no database: {error}",
            do="give sqlite:///FILE, or postgresql+psycopg://USER@HOST/DATABASE (pip install 'flyweight[postgresql]')",
        ) from error
