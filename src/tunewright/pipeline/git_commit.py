"""Which commit is checked out in a folder, read from git's own files.

The program git is not asked: it obeys the configuration that lies in the folder, which can start other programs
(core.fsmonitor, filters, hooks), and a folder may come from a stranger. Only HEAD and refs are read, as regular files of
bounded size that lie in the repository itself. Whether files were changed since the commit is not decided: that needs the
index, the objects and the filters.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# The names that `git check-ref-format` allows below refs/, but for the rare ones that look like options or paths.
REF = re.compile(r"refs(/(?!\.)[^/\x00-\x20\x7f~^:?*\[\\]+)+")
# A ref may name another one, as HEAD does.
MOST_STEPS = 5
# Bytes of a file with one line, and of the list of packed refs: a million refs are about 64 MiB.
LINE_BYTES, PACKED_BYTES = 4096, 64 * 2**20


def git_commit(folder: Path) -> str | None:
    """The commit that the folder's repository has checked out; None outside a repository, and where it cannot be told."""
    try:
        place = folder.resolve()
        for above in (place, *place.parents):
            if os.path.lexists(above / ".git"):
                found = _git_folder(above / ".git")
                return None if found is None else _checked_out(found)
    except (OSError, ValueError):
        pass
    return None


def _git_folder(path: Path) -> Path | None:
    """The folder with HEAD in it: `.git` itself, or what it names in a linked worktree or a submodule.

    A `.git` file may name any folder; it is followed to a worktree that names it back, or to a module of a repository
    that the folder lies in.
    """
    if stat.S_ISDIR(path.lstat().st_mode):
        return path
    line = _read(path, LINE_BYTES).strip()
    if not line.startswith("gitdir:"):
        return None
    found = (path.parent / line.removeprefix("gitdir:").strip()).resolve()
    modules = [above / ".git" / "modules" for above in path.parent.parents]
    if any(found.is_relative_to(module) for module in modules):
        return found
    back = found / _read(found / "gitdir", LINE_BYTES).strip()
    return found if back.resolve() == path else None


def _checked_out(git: Path) -> str | None:
    common = git
    if (git / "commondir").exists():
        common = (git / _read(git / "commondir", LINE_BYTES).strip()).resolve()
        if git.parent != common / "worktrees":
            return None
    found = _read(git / "HEAD", LINE_BYTES).strip()
    for _ in range(MOST_STEPS):
        if COMMIT.fullmatch(found):
            return found
        name = found.removeprefix("ref:").strip()
        if name == found or not REF.fullmatch(name) or ".." in name:
            return None
        found = _ref(common, name)
    return None


def _ref(common: Path, name: str) -> str:
    """What a ref says: its own file's line, else that of the packed refs; empty where it is in neither."""
    path = common / name
    if path.is_file():
        if not path.resolve().is_relative_to(common.resolve()):
            return ""
        return _read(path, LINE_BYTES).strip()
    if not (common / "packed-refs").exists():
        return ""
    for line in _read(common / "packed-refs", PACKED_BYTES).splitlines():
        commit, _, named = line.partition(" ")
        if named == name:
            return commit
    return ""


def _read(path: Path, most: int) -> str:
    """A regular file's text; a link, a pipe or a larger file is an OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > most:
            raise OSError(f"{path} is no regular file of at most {most} bytes")
        return file.read(most).decode()
