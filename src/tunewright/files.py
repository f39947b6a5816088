"""Files that are either whole or absent: atomic writes, hashes, the cache folder; and opening only what is a file."""

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
# A path that the system does not let this user use as it was meant.
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
# The key under which a record keeps the hash of its own content.
SEAL = "content_sha256"


def cache_dir() -> Path:
    """Where prepared data is kept between runs: $TUNEWRIGHT_CACHE, else ~/.cache/tunewright."""
    chosen = os.environ.get("TUNEWRIGHT_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "tunewright"


def cache_file(kind: str, known: object) -> Path:
    """Where something measured is kept, by all that it depends on: a JSON file of the cache."""
    return cache_dir() / kind / f"{hashlib.sha256(repr(known).encode()).hexdigest()[:32]}.json"


def regular(path: Path, error: type[UserError] = DataError) -> Path:
    """The path of a regular file, links followed; for libraries that open it by its name.

    Raises:
        error: it is a folder, a pipe, a socket or a device, whose reading may never end.
        OSError: there is no such file, or it may not be looked at.
    """
    _require_regular(os.stat(path), path, error)
    return path


def open_regular(path: Path, error: type[UserError] = DataError) -> BufferedReader | BytesIO:
    """Open a regular file for reading, and nothing else. One whose length is 0 is empty, whatever the system would make up
    for it, as below /proc.

    Raises:
        error: it is a folder, a pipe, a socket or a device.
        OSError: there is no such file, or it may not be read.
    """
    handle = os.open(regular(path, error), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Asked again of what was opened: the name may mean another file by now.
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
            expected="a file with an end",
            fix="copy what it holds to a file, and name that",
        )


def files_below(folder: Path) -> Iterator[str]:
    """The names of the regular files of a folder and of the folders in it, in no order; links to folders are not followed.

    Raises:
        DataError: there are more than a folder of data may have.
    """
    count, most, folders = 0, FOLDER_FILES.value, [str(folder)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:  # one that may not be read, or is gone
            for entry in entries:
                count += 1
                if count > most:
                    FOLDER_FILES.require(count, "the folder holds too many files", file=folder)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file():
                    yield entry.path


def identity_of(path: Path) -> tuple[str, int, int, int, int]:
    """What changes whenever a file is replaced or written: its name, inode, size, and times of content and of status. The
    last of them cannot be set back."""
    status = os.stat(path)
    return os.path.abspath(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_sha256(path: Path) -> str:
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
        limit.require(file.seek(0, os.SEEK_END), problem, error=error, file=path)
        file.seek(0)
        content = file.read(most + 1)  # the size is that of a moment ago
    limit.require(float("inf") if len(content) > most else 0, problem, error=error, file=path)
    return content


def content_hash(value: Any) -> str:
    """The SHA-256 of a JSON value, whatever its layout and the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


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
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, text.encode(errors="backslashreplace"))  # half a surrogate pair stays a valid escape of JSON


def write_record(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object with the hash of its own content, which `open_record` checks."""
    plain = {key: entry for key, entry in value.items() if key != SEAL}
    write_json(path, {**plain, SEAL: content_hash(json.loads(json.dumps(plain)))})


def open_record(raw: bytes) -> dict[str, Any]:
    """The JSON object that a file holds, checked where it has a hash of its own content.

    Raises:
        ValueError: it is damaged.
    """
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise ValueError(f"it holds no JSON object but {str(value)[:40]}")
    written = value.pop(SEAL, None)
    if written is not None and written != content_hash(value):
        raise ValueError(f"its content is not what was written: it does not match its {SEAL}")
    if b"\\ud" in raw.lower():  # half a surrogate pair is no text that could be shown or written again
        value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
    return value


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a file that a library wrote its name, once its bytes would survive a power cut."""
    sync_file(temporary)
    os.replace(temporary, path)
    sync_folder(path.parent)


def require_writable(folder: Path) -> None:
    """See that a folder can be made, and that files can be written into it.

    Raises:
        ArtifactError: they cannot.
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


def refusal(error: Exception) -> TunewrightError | None:
    """What the system refused, as an error that a person can mend; None where it refused nothing.

    A path that cannot be used is the user's mistake, a full or broken disk is not.
    """
    if (found := system_error(error)) is None:
        return None
    number, reason = found
    name = getattr(error, "filename", None)
    path = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None
    if number in UNUSABLE:
        inside_cache = path is not None and path.absolute().is_relative_to(cache_dir().absolute())
        fix = "set TUNEWRIGHT_CACHE to a folder that you may write" if inside_cache else "check the path and its rights"
        return UserError(reason, file=path, fix=fix)
    return RunFailed(reason, file=path or "the system", fix="look at the disk: its space, its health")


@contextmanager
def resumable(folder: Path) -> Generator[None]:
    """Say in a sentence when the system refuses to read or write what a run needs, such as on a full disk.

    Raises:
        UserError: a path cannot be used.
        RunFailed: the system refused something else. What was written before is whole, and the run can go on.
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
