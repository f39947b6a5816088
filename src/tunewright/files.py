"""Files that are either whole or absent: atomic writes, hashes, the cache folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tunewright.errors import ArtifactError, RunFailed, UserError
from tunewright.limits import Limit

# What a name of the file system can stand for besides a regular file.
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


# Below so many bytes a file is hashed each time: that is as fast as looking its hash up.
HASHED_EACH_TIME = 2**20
# A file that was changed less than so many seconds ago may change again without its times showing it.
SETTLED_AFTER = 2.0
# A temporary folder in which nothing was written for so many seconds belongs to a process that was killed.
ABANDONED = 24 * 3600
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def cache_dir() -> Path:
    """Where prepared data is kept between runs: $TUNEWRIGHT_CACHE, else ~/.cache/tunewright."""
    chosen = os.environ.get("TUNEWRIGHT_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "tunewright"


def cache_file(kind: str, known: object) -> Path:
    """Where something measured is kept, by all that it depends on: a JSON file of the cache."""
    return cache_dir() / kind / f"{hashlib.sha256(repr(known).encode()).hexdigest()[:32]}.json"


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: Path) -> str:
    """As `sha256_file`, but a large file that was hashed before and not changed since is not read again.

    Its hash is kept in the cache by path, inode, size and times; the time of the last change of the inode (ctime) is
    set by the system alone.
    """
    status = path.stat()
    if status.st_size < HASHED_EACH_TIME:
        return sha256_file(path)
    kept = cache_file(
        "sha256", (str(path.resolve()), status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size)
    )
    try:
        found = json.loads(kept.read_bytes())
        if isinstance(found, str) and re.fullmatch("[0-9a-f]{64}", found):
            return found
    except (OSError, ValueError):
        pass  # not there, or damaged: hashed anew
    found = sha256_file(path)
    if time.time() - status.st_ctime > SETTLED_AFTER:
        with suppress(OSError):  # without a cache it is hashed each time
            write_json(kept, found)
    return found


def open_regular(path: Path, *, error: type[UserError] = UserError) -> BinaryIO:
    """Open a regular file for reading. Anything else is refused, without waiting for its other end.

    Raises:
        UserError: (or `error`) it is a folder, a named pipe, a device or a socket.
        OSError: it is missing, or may not be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        if path.exists() and not path.is_file():  # a socket cannot be opened at all
            raise _not_regular(path, path.stat().st_mode, error) from None
        raise
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise _not_regular(path, mode, error)
    return os.fdopen(handle, "rb")


def read_bounded(path: Path, limit: Limit, problem: str, *, error: type[UserError] = UserError) -> bytes:
    """Read a whole regular file, at most `limit` bytes of it.

    Args:
        problem: what to say of a larger one, such as "the recipe is too large".

    Raises:
        UserError: (or `error`) it is larger, or no regular file.
        OSError: it is missing, or may not be read.
    """
    with open_regular(path, error=error) as file:
        most = limit.value
        limit.require(os.fstat(file.fileno()).st_size, problem, error=error, file=path)
        content = file.read(most + 1)  # the size is that of a moment ago, and files of /proc have none
    limit.require(float("inf") if len(content) > most else 0, problem, error=error, file=path)
    return content


def _not_regular(path: Path, mode: int, error: type[UserError]) -> UserError:
    found = next((kind for fits, kind in KINDS if fits(mode)), "something else")
    return error(
        f"this is {found} and not a file",
        file=path,
        found=found,
        expected="a regular file",
        fix="name a file" + (" in it" if stat.S_ISDIR(mode) else ", or copy its content into one"),
    )


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Make the bytes of a file that was written by somebody else survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_all(folder: Path) -> None:
    """Make all files in a folder survive a power cut, whoever wrote them."""
    for path in folder.iterdir():
        if path.is_file():
            sync_file(path)
    sync_folder(folder)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented for people; NaN is refused because JSON has none."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a file that a library wrote its name, once its bytes would survive a power cut."""
    sync_file(temporary)
    os.replace(temporary, path)
    sync_folder(path.parent)


def require_writable(folder: Path) -> None:
    """Make a folder, and see that files can be written into it.

    Raises:
        ArtifactError: they cannot.
    """
    probe = folder / f".writable.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"?")
        probe.unlink()
    except OSError as error:
        with suppress(OSError):
            probe.unlink()
        raise ArtifactError(
            f"the folder cannot be written: {error.strerror}",
            file=folder,
            expected="a folder that this user may write into, on a disk with room",
            fix="free disk space" if error.errno in NO_ROOM else "name another folder, or change its permissions",
        ) from error


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder lies or will lie."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder.resolve()).free


def system_error(error: Exception) -> tuple[int, str] | None:
    """The number of the system's error behind an exception and its text; None where the system refused nothing.

    Libraries in Rust (safetensors, tokenizers) say it in their message alone.
    """
    if isinstance(error, OSError):
        return None if error.errno is None else (error.errno, error.strerror or os.strerror(error.errno))
    found = re.search(r"\(os error (\d+)\)", str(error))
    return None if found is None else (int(found[1]), os.strerror(int(found[1])))


@contextmanager
def resumable(folder: Path) -> Generator[None]:
    """Say in a sentence when the system refuses to read or write what a run needs, such as on a full disk.

    Raises:
        RunFailed: it did. What was written before is whole, and the run can go on.
    """
    try:
        yield
    except Exception as error:
        if (found := system_error(error)) is None:
            raise
        number, reason = found
        cure = "free disk space" if number in NO_ROOM else "make sure that the file can be read and written"
        raise RunFailed(
            f"the run was interrupted: {reason}",
            file=getattr(error, "filename", None) or folder,
            fix=f"{cure}, and run the same command again: it continues where it was",
        ) from error


def sweep(root: Path) -> None:
    """Remove the temporary folders `.tmp-…` in which nothing was written for a day: killed processes left them."""
    for folder in root.glob(".tmp-*"):
        with suppress(OSError):
            newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
            if time.time() - newest > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder so that a crash half way never leaves a part of it under its own name."""
    doomed = folder.with_name(f".trash-{folder.name}-{os.getpid()}")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
