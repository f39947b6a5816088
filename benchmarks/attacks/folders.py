"""Hostile surroundings: what lies beside a recipe in an unpacked archive."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator

from attacks.attempt import Attempt, Scene
from attacks.recipes import BASE

GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
GIT |= {"GIT_COMMITTER_EMAIL": "a@b"}


def attempts() -> Iterator[Attempt]:
    """Every hostile folder; each is entered by a new interpreter, as a person would."""
    for name, make in {**REPOSITORIES, **MODULES}.items():
        yield Attempt("folder", name, make, fresh=True)


def _program(scene: Scene, name: str = "payload") -> str:
    path = scene.folder / name
    path.write_text(f"#!/bin/sh\ntouch {scene.trace}\ncat\n")
    path.chmod(0o755)
    return str(path)


def _repository(scene: Scene) -> list[str]:
    (scene.folder / "recipe.yaml").write_text(json.dumps(BASE))
    for words in (["init", "--quiet"], ["add", "recipe.yaml"], ["commit", "--quiet", "-m", "one"]):
        subprocess.run(["git", *words], cwd=scene.folder, env={**os.environ, **GIT}, check=True)
    return ["run", "recipe.yaml"]


def _configured(*settings: tuple[str, str], attributes: str = "") -> Callable[[Scene], list[str]]:
    """A repository whose own configuration names a program, which `{program}` stands for."""

    def prepare(scene: Scene) -> list[str]:
        words = _repository(scene)
        program = _program(scene)
        for key, value in settings:
            value = value.format(program=program)
            subprocess.run(["git", "config", key, value], cwd=scene.folder, check=True)
        if attributes:
            (scene.folder / ".gitattributes").write_text(attributes)
        (scene.folder / "recipe.yaml").touch()  # so that its content is compared
        return words

    return prepare


def _bare(scene: Scene) -> list[str]:
    """The files of a repository lie in the folder itself, so that git takes it for one without any `.git`."""
    words = _repository(scene)
    for path in (scene.folder / ".git").iterdir():
        path.rename(scene.folder / path.name)
    (scene.folder / ".git").rmdir()
    with (scene.folder / "config").open("a") as file:
        file.write(f"[core]\n\tworktree = {scene.folder}\n\tfsmonitor = {_program(scene)}\n")
    return words


def _gitfile(scene: Scene) -> list[str]:
    (scene.folder / "recipe.yaml").write_text(json.dumps(BASE))
    (scene.folder / ".git").write_text(f"gitdir: {scene.secret}\n")
    return ["run", "recipe.yaml"]


def _git_head(content: str) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        words = _repository(scene)
        (scene.folder / ".git" / "HEAD").write_text(content.format(secret=scene.secret))
        return words

    return prepare


def _head_fifo(scene: Scene) -> list[str]:
    words = _repository(scene)
    (scene.folder / ".git" / "HEAD").unlink()
    os.mkfifo(scene.folder / ".git" / "HEAD")
    return words


REPOSITORIES: dict[str, Callable[[Scene], list[str]]] = {
    "git: fsmonitor": _configured(("core.fsmonitor", "{program}")),
    "git: clean filter": _configured(("filter.x.clean", "{program}"), attributes="* filter=x\n"),
    "git: process filter": _configured(("filter.x.process", "{program}"), attributes="* filter=x\n"),
    "git: hooks": _configured(("core.hooksPath", "."), ("core.pager", "{program}")),
    "git: external diff": _configured(("diff.external", "{program}"), ("core.sshCommand", "{program}")),
    "git: alias": _configured(("alias.status", "!{program}"), ("alias.rev-parse", "!{program}")),
    "git: include": _configured(("include.path", "{program}")),
    "git: bare repository": _bare,
    "git: a .git file that points elsewhere": _gitfile,
    "git: a HEAD that points elsewhere": _git_head("ref: ../../../../../../../..{secret}\n"),
    "git: a HEAD of 10 MB": _git_head("x" * 10_000_000),
    "git: HEAD is a fifo": _head_fifo,
}


def _module(name: str) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        (scene.folder / "recipe.yaml").write_text(json.dumps(BASE))
        (scene.folder / f"{name}.py").write_text(f"open({str(scene.trace)!r}, 'w').close()\n")
        return ["run", "recipe.yaml"]

    return prepare


def _package(name: str) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        (scene.folder / "recipe.yaml").write_text(json.dumps({**BASE, "track": ["tensorboard"]}))
        (scene.folder / name).mkdir()
        (scene.folder / name / "__init__.py").write_text(f"open({str(scene.trace)!r}, 'w').close()\n")
        return ["run", "recipe.yaml"]

    return prepare


# Files that shadow a module only where the working folder stands on sys.path.
MODULES: dict[str, Callable[[Scene], list[str]]] = {
    f"a module named {name}": _module(name)
    for name in ("torch", "json", "numpy", "sitecustomize", "kernels", "mlflow", "pyarrow", "git", "tunewright_plugin")
} | {f"a package named {name}": _package(name) for name in ("tensorboard", "opacus", "accelerate")}
