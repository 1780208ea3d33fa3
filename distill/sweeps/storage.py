"""Where a study is kept: a file of SQLite's, a database server, or a journal that machines share by a file system."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from distill.errors import MissingError, RunError, UsageError
from distill.sweeps.folder import SweepDefinition, SweepFolder, redacted

__all__ = ["open_study", "require_optuna"]

JOURNAL = "journal:"

_DRIVERS = {  # the package that has a module; which of them postgresql:// means depends on SQLAlchemy's version
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
}
_URLS = "journal:/shared/study.log, postgresql://user:password@host/database or sqlite:////shared/study.db"
_TRIES, _BETWEEN_S = 5, 1.0


def require_optuna() -> ModuleType:
    """The package, quiet.

    Raises:
        MissingError: It is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingError("--search needs Optuna, which is not installed", hint="pip install optuna") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it would say of a failed trial, the sweep says
    return optuna


@contextlib.contextmanager
def open_study(folder: SweepFolder, definition: SweepDefinition) -> Iterator[Any]:
    """The study named after the folder, in its storage; begun where it is not there yet.

    Raises:
        MissingError: The storage's database driver is not installed.
        RunError: The storage cannot be opened, or is lost on the way.
        UsageError: The storage has another sweep of that name.
    """
    optuna = require_optuna()
    url = definition.storage or f"sqlite:///{(folder.path / 'study.db').absolute()}"
    storage = _open_storage(optuna, url)
    try:
        study = optuna.create_study(
            study_name=folder.path.name, storage=storage, direction="maximize", load_if_exists=True
        )
        _claim(study, definition, url)
        yield study
    except optuna.exceptions.StorageInternalError as error:
        raise RunError(
            f"the study in {redacted(url)} was lost: {_reason(error.__cause__ or error, url)}",
            hint=f"what was finished is in it; when it can be reached again: distill sweep --resume {folder.path}",
        ) from error
    finally:
        _close(storage)


def _open_storage(optuna: ModuleType, url: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # parts were experimental once
            return _open(optuna, url)
    except ImportError as error:
        raise MissingError(
            f"{redacted(url)}: its database driver is not installed (no module {_missing_module(error)})",
            hint=f"pip install {_DRIVERS.get(_missing_module(error), _missing_module(error))}",
        ) from error
    except Exception as error:  # SQLAlchemy's and the drivers' own, whose bases are not to be imported here
        raise RunError(
            f"cannot open the study in {redacted(url)}: {_reason(error, url)}", hint=f"as in {_URLS}"
        ) from None


def _missing_module(error: BaseException | None) -> str:
    """The module that could not be imported, as the error behind Optuna's own says."""
    name = "for this URL"
    while error is not None:
        name = getattr(error, "name", None) or name
        error = error.__cause__ or error.__context__
    return name


def _open(optuna: ModuleType, url: str) -> Any:
    if url.startswith(JOURNAL):
        return optuna.storages.JournalStorage(_journal_file(optuna, url))
    if url.startswith("redis"):
        return optuna.storages.get_storage(url)
    for number in range(1, _TRIES + 1):
        try:
            return optuna.storages.RDBStorage(url)
        except ImportError:
            raise
        except Exception as error:  # workers that start together make the tables at once, and all but one are refused
            if number == _TRIES or not (_is_server(url) or _is_made_by_another(error)):
                raise
            time.sleep(_BETWEEN_S)
    raise AssertionError("it was opened, or was not")


def _is_server(url: str) -> bool:
    return not url.startswith("sqlite")


def _is_made_by_another(error: Exception) -> bool:
    """Whether SQLite refuses since another process makes its tables; a path that is wrong stays so."""
    return any(words in str(error) for words in ("already exists", "database is locked", "UNIQUE constraint failed"))


def _journal_file(optuna: ModuleType, url: str) -> Any:
    path = url.removeprefix(JOURNAL)
    path = path.removeprefix("//") if path.startswith("//") else path
    if not path:
        raise ValueError("no file is named")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise ValueError("it is no regular file")
    journal = optuna.storages.journal
    # A symbolic link is what NFS makes in one step; Windows allows it to administrators alone.
    lock = journal.JournalFileOpenLock(path) if os.name == "nt" else journal.JournalFileSymlinkLock(path)
    return journal.JournalFileBackend(path, lock_obj=lock)


def _reason(error: BaseException, url: str) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].replace(url, redacted(url))


def _close(storage: Any) -> None:
    with contextlib.suppress(AttributeError):
        storage.scoped_session.remove()
        storage.engine.dispose()


def _claim(study: Any, definition: SweepDefinition, url: str) -> None:
    """One study is one recipe and one space, whichever machine asks."""
    mark = hashlib.sha256(repr(sorted(definition.identity.items())).encode()).hexdigest()
    before = study.user_attrs.get("distill_sweep")
    if before is None:
        study.set_user_attr("distill_sweep", mark)
    elif before != mark:
        raise UsageError(
            f"{redacted(url)} has a study {study.study_name} of another recipe or search",
            hint="give this sweep a name of its own: --name NAME",
        )
