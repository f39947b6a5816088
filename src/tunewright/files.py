"""Read and write files safely: atomic writes, hashes, the cache folder, and opening of regular files only."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

from tunewright.errors import ArtifactError, DataError, RunFailed, TunewrightError, UserError
from tunewright.limits import FOLDER_FILES, Limit

# What a path can be other than a regular file.
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


# Files with fewer bytes are hashed each time, which is as fast as looking up the hash.
HASHED_EACH_TIME = 2**20
# A file that changed fewer seconds ago may change again without a change of its times.
SETTLED_AFTER = 2.0
# A temporary folder without a write for this many seconds belongs to a process that was killed.
ABANDONED = 24 * 3600
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Errors of a path that this user cannot use as intended.
UNUSABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
# The key of a record for the hash of its own content.
SEAL = "content_sha256"


def cache_dir() -> Path:
    """Return the cache folder for prepared data: $TUNEWRIGHT_CACHE, else ~/.cache/tunewright."""
    chosen = os.environ.get("TUNEWRIGHT_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "tunewright"


def cache_file(kind: str, known: object) -> Path:
    """Return the path of a JSON file in the cache, from everything that its content depends on."""
    return cache_dir() / kind / f"{hashlib.sha256(repr(known).encode()).hexdigest()[:32]}.json"


def regular(path: Path, error: type[UserError] = DataError) -> Path:
    """Return the path if it is a regular file, following links; for libraries that open files by name.

    Raises:
        error: it is a folder, a pipe, a socket or a device, which may be endless.
        OSError: there is no such file, or it may not be looked at.
    """
    _require_regular(os.stat(path), path, error)
    return path


def open_regular(path: Path, error: type[UserError] = DataError) -> BufferedReader | BytesIO:
    """Open a regular file for reading. A file of length 0 is read as empty, also where the system would generate its
    content, as in /proc.

    Raises:
        error: it is a folder, a pipe, a socket or a device.
        OSError: there is no such file, or it may not be read.
    """
    handle = os.open(regular(path, error), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Check the opened file as well: the name may refer to another file by now.
        status = os.fstat(handle)
        _require_regular(status, path, error)
        file = os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise
    if status.st_size == 0:
        file.close()
        return BytesIO()
    return file


def _require_regular(status: os.stat_result, path: Path, error: type[UserError]) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise error(
            "this is not a regular file",
            file=path,
            found=next((name for is_kind, name in KINDS if is_kind(status.st_mode)), "something else"),
            expected="a regular file",
            fix="copy its content to a file, and name that",
        )


def files_below(folder: Path) -> Iterator[str]:
    """Yield the paths of all regular files in a folder and its subfolders, in no order; links to folders are not followed.

    Raises:
        DataError: there are more files than the limit for a data folder.
    """
    count, most, folders = 0, FOLDER_FILES.value, [str(folder)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:  # a folder that cannot be read, or was deleted
            for entry in entries:
                count += 1
                if count > most:
                    FOLDER_FILES.require(count, "the folder holds too many files", file=folder)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file():
                    yield entry.path


def identity_of(path: Path) -> tuple[str, int, int, int, int]:
    """Return the name, inode, size, mtime and ctime of a file, which change whenever it is replaced or written. The ctime
    cannot be set back."""
    status = os.stat(path)
    return os.path.abspath(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; a large file that was hashed before and has not changed is not read again.

    The hash is cached by path, inode, size and times; the time of the last change of the inode (ctime) is
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
        pass  # missing or damaged: hash the file again
    found = sha256_file(path)
    if time.time() - status.st_ctime > SETTLED_AFTER:
        with suppress(OSError):  # without a writable cache the file is hashed each time
            write_json(kept, found)
    return found


def read_bounded(path: Path, limit: Limit, problem: str, *, error: type[UserError] = UserError) -> bytes:
    """Read a whole regular file, at most `limit` bytes of it.

    Args:
        problem: the message for a larger file, such as "the recipe is too large".

    Raises:
        UserError: (or `error`) it is larger, or not a regular file.
        OSError: it is missing, or may not be read.
    """
    with open_regular(path, error=error) as file:
        most = limit.value
        limit.require(file.seek(0, os.SEEK_END), problem, error=error, file=path)
        file.seek(0)
        content = file.read(most + 1)  # the file may have grown since
    limit.require(float("inf") if len(content) > most else 0, problem, error=error, file=path)
    return content


def content_hash(value: Any) -> str:
    """Return the SHA-256 of a JSON value, independent of its layout and the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Make the bytes of a file that a library wrote survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_all(folder: Path) -> None:
    """Make all files in a folder survive a power cut."""
    for path in folder.iterdir():
        if path.is_file():
            sync_file(path)
    sync_folder(folder)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new, never a part of it."""
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
    """Write JSON atomically, indented; NaN is refused, because JSON has none."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, text.encode(errors="backslashreplace"))  # a lone surrogate stays a valid JSON escape


def write_record(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object with the hash of its own content, which `open_record` checks."""
    plain = {key: entry for key, entry in value.items() if key != SEAL}
    write_json(path, {**plain, SEAL: content_hash(json.loads(json.dumps(plain)))})


def open_record(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object, and check its content if it has a content hash.

    Raises:
        ValueError: it is damaged.
    """
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise ValueError(f"it is not a JSON object but {str(value)[:40]}")
    written = value.pop(SEAL, None)
    if written is not None and written != content_hash(value):
        raise ValueError(f"its content was changed: it does not match its {SEAL}")
    if b"\\ud" in raw.lower():  # a lone surrogate can be neither printed nor written again
        value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
    return value


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a file that a library wrote, after its bytes are synced to disk."""
    sync_file(temporary)
    os.replace(temporary, path)
    sync_folder(path.parent)


def require_writable(folder: Path) -> None:
    """Check that a folder can be created and written to.

    Raises:
        ArtifactError: it cannot.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    probe = existing / f".writable.{os.getpid()}.tmp"
    try:
        probe.write_bytes(b"?")
        probe.unlink()
    except OSError as error:
        with suppress(OSError):
            probe.unlink()
        raise ArtifactError(
            f"the folder cannot be written: {error.strerror}",
            file=folder,
            expected="a folder that this user can write to, on a disk with free space",
            fix="free disk space" if error.errno in NO_ROOM else "name another folder, or change its permissions",
        ) from error


def free_disk(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder.resolve()).free


def system_error(error: Exception) -> tuple[int, str] | None:
    """Return errno and text of the system error behind an exception; None if there is none.

    Libraries in Rust (safetensors, tokenizers) only mention it in their message.
    """
    if isinstance(error, OSError):
        return None if error.errno is None else (error.errno, error.strerror or os.strerror(error.errno))
    found = re.search(r"\(os error (\d+)\)", str(error))
    return None if found is None else (int(found[1]), os.strerror(int(found[1])))


def refusal(error: Exception) -> TunewrightError | None:
    """Convert a system error to an error with a fix; None if the exception is not a system error.

    A path that cannot be used is a user's mistake, a full or broken disk is not.
    """
    if (found := system_error(error)) is None:
        return None
    number, reason = found
    name = getattr(error, "filename", None)
    path = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None
    if number in UNUSABLE:
        inside_cache = path is not None and path.absolute().is_relative_to(cache_dir().absolute())
        fix = "set TUNEWRIGHT_CACHE to a writable folder" if inside_cache else "check the path and its permissions"
        return UserError(reason, file=path, fix=fix)
    return RunFailed(reason, file=path or "the system", fix="check the disk: its free space, its health")


@contextmanager
def resumable(folder: Path) -> Generator[None]:
    """Convert system errors of a run, such as a full disk, to errors with a fix.

    Raises:
        UserError: a path cannot be used.
        RunFailed: any other system error. What was written before is intact, and the run can be resumed.
    """
    try:
        yield
    except Exception as error:
        if (found := system_error(error)) is None:
            raise
        number, reason = found
        if number in UNUSABLE and (refused := refusal(error)) is not None:
            raise refused from error
        cure = "free disk space" if number in NO_ROOM else "make sure that the file can be read and written"
        raise RunFailed(
            f"the run was interrupted: {reason}",
            file=getattr(error, "filename", None) or folder,
            fix=f"{cure}, and run the same command again: it resumes where it stopped",
        ) from error


def sweep(root: Path) -> None:
    """Remove temporary folders `.tmp-…` without a write for a day, which killed processes left."""
    for folder in root.glob(".tmp-*"):
        with suppress(OSError):
            newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
            if time.time() - newest > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder so that a crash never leaves a part of it under its name."""
    doomed = folder.with_name(f".trash-{folder.name}-{os.getpid()}")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
