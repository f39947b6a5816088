"""Somebody else's folder, pictures and recordings: no program starts, nothing outside is read, nothing grows without bound."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY
from tunewright.stages.environment import describe_environment
from tunewright.stages.git_commit import git_commit

COMMIT = "1c46dec42be66832698ae2f9827cc4f46ccf7f30"


def fake_program(folder: Path, name: str) -> Path:
    """A program in `folder` that leaves a trace, which is returned."""
    trace = folder / f"{name}-ran"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho $0 $@ >> '{trace}'\n")
    (folder / name).chmod(0o755)
    return trace


def git(folder: Path, *words: str) -> str:
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", str(folder), *settings, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def repository(folder: Path) -> Path:
    """With one commit, by git itself."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("task: classification\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def written(folder: Path, head: str, **files: str) -> Path:
    """A repository without git's help: HEAD, and files by their names with __ for /."""
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text(head)
    for name, text in files.items():
        path = folder / ".git" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize("layout", ["monitor", "bare", "filter", "include"])
def test_a_folder_s_own_configuration_of_git_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    folder, trace = tmp_path / "unpacked", fake_program(tmp_path / "tools", "program")
    program = trace.with_name("program")
    settings = {
        "monitor": f"[core]\n fsmonitor = {program}\n hooksPath = {program.parent}\n",
        "bare": f"[core]\n bare = false\n worktree = {folder}\n fsmonitor = {program}\n",
        "filter": f'[filter "x"]\n clean = {program}\n smudge = {program}\n process = {program}\n',
        "include": f"[include]\n path = {tmp_path / 'more'}\n",
    }[layout]
    (tmp_path / "more").write_text(f"[core]\n fsmonitor = {program}\n")
    repository(folder)
    commit = git(folder, "rev-parse", "HEAD")
    (folder / ".gitattributes").write_text("* filter=x\n")
    with (folder / ".git" / "config").open("a") as file:
        file.write(settings)
    (folder / "recipe.yaml").write_text("task: regression\n")
    if layout == "bare":
        for entry in (folder / ".git").iterdir():
            shutil.move(entry, folder)
        (folder / ".git").rmdir()
    asked = fake_program(tmp_path / "tools", "git")
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:{os.environ['PATH']}")
    assert describe_environment(folder, [])["git_commit"] == (None if layout == "bare" else commit)
    assert not trace.exists() and not asked.exists()


def test_the_commit_is_what_git_says(tmp_path: Path) -> None:
    folder = repository(tmp_path / "main")
    commit = git(folder, "rev-parse", "HEAD")
    (folder / "below").mkdir()
    assert git_commit(folder) == git_commit(folder / "below") == commit
    git(folder, "worktree", "add", "-q", "-b", "side/branch", str(tmp_path / "worktree"))
    (tmp_path / "worktree" / "more").write_text("x")
    git(tmp_path / "worktree", "add", ".")
    git(tmp_path / "worktree", "commit", "-q", "-m", "two")
    assert git_commit(tmp_path / "worktree") == git(tmp_path / "worktree", "rev-parse", "HEAD") != commit
    git(folder, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "worktree"), "module")
    assert git_commit(folder / "module") == git_commit(tmp_path / "worktree")
    git(folder, "pack-refs", "--all")
    assert git_commit(folder) == commit and not (folder / ".git" / "refs" / "heads" / "main").exists()
    git(folder, "checkout", "-q", "--detach")
    assert git_commit(folder) == commit
    assert git_commit(tmp_path) is None


@pytest.mark.parametrize(
    "head",
    [
        "ref: refs/heads/../../../secret",
        "ref: /etc/passwd",
        "ref: ../secret",
        "ref: refs/heads/link",
        "ref: refs/out/x",
        "ref: refs/heads/none",
        "ref: refs/heads/circle",
        "ref: refs/pipe",
        "no commit",
        "",
        "0" * 41,
        "x" * 10_000,
    ],
)
def test_an_odd_ref_is_not_followed_out_of_the_repository(tmp_path: Path, head: str) -> None:
    (tmp_path / "outside").mkdir()
    for name in ("secret", "outside/x"):
        (tmp_path / name).write_text(COMMIT)
    folder = written(tmp_path / "r", head, refs__heads__circle="ref: refs/heads/circle", **{"packed-refs": "^x\n\0\n"})
    (folder / ".git" / "refs" / "heads" / "link").symlink_to(tmp_path / "secret")
    (folder / ".git" / "refs" / "out").symlink_to(tmp_path / "outside")
    os.mkfifo(folder / ".git" / "refs" / "pipe")
    assert git_commit(folder) is None


def test_a_git_file_is_followed_to_a_folder_that_names_it_back(tmp_path: Path) -> None:
    other = written(tmp_path / "other", COMMIT)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / ".git").write_text(f"gitdir: {other / '.git'}\n")
    assert git_commit(other) == COMMIT and git_commit(tmp_path / "r") is None
    (tmp_path / "r" / ".git").unlink()
    os.mkfifo(tmp_path / "r" / ".git")
    assert git_commit(tmp_path / "r") is None


EVIL = 'open("{trace}", "a").write(__name__)\nraise ImportError("evil")\n'


def test_modules_in_the_working_folder_are_not_imported(tmp_path: Path) -> None:
    for name in ("json", "typer", "torch", "yaml", "numpy", "sitecustomize", "kernels", "sqlite3"):
        (tmp_path / f"{name}.py").write_text(EVIL.format(trace=tmp_path / "ran"))
    done = subprocess.run(
        [sys.executable, "-m", "tunewright", "doctor"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def test_every_python_process_that_is_started_leaves_the_working_folder_out() -> None:
    found = [
        (file.name, text)
        for file in (REPOSITORY / "src").rglob("*.py")
        for text in re.findall(r"sys\.executable[^\n]{0,6}", file.read_text())
    ]
    assert found and all(text == 'sys.executable, "-P"'[: len(text)] for _, text in found), found
