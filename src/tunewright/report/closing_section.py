"""What the result depends on: versions and hardware, the commands that make it again, whose data it is."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from tunewright.report import numbers
from tunewright.report.components import facts, folded, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import RunFiles, shown
from tunewright.report.translations import Words
from tunewright.runs.run_files import DataFile

# The line under which `tunewright run` notes the overrides in its copy of the recipe.
OVERRIDES = "# with these overrides:"


def environment(words: Words, run: RunFiles) -> list[Html | None]:
    """Versions, hardware, the hashes of the data files."""
    if (found := run.environment) is None:
        return [tag("p", words("not_stated"))]
    cores, memory, threads = found.cores, found.memory_bytes, found.threads
    accelerators = [shown(name) for name in found.accelerators]
    packages = [f"{name} {shown(version)}" for name, version in found.packages.items()]
    files = found.data
    return [
        facts(
            [
                (words("platform"), found.platform),
                (words("processor"), found.processor),
                (words("cores"), numbers.count(cores) if cores is not None else None),
                (words("threads"), numbers.count(threads) if threads is not None else None),
                (words("memory"), numbers.size(memory) if memory is not None else None),
                (words("accelerators"), words("comma").join(accelerators) or words("none")),
                (words("python"), found.python),
                (words("packages"), words("comma").join(packages) or None),
                (words("git_commit"), tag("code", found.git_commit) if found.git_commit else None),
            ]
        ),
        folded(f"{words('data_files')} ({len(files)})", _files(words, files)) if files else None,
    ]


def _files(words: Words, files: list[DataFile]) -> Html:
    rows = [
        (
            # The folders above it are nobody else's business.
            PurePosixPath(shown(entry.path, 400)).name,
            numbers.size(entry.bytes),
            tag("code", shown(entry.sha256)),
        )
        for entry in files[:100]
    ]
    head = [words("file"), words("size"), words("sha256")]
    return table(head, rows, caption=words("data_files"), right=[1])


def reproduce(words: Words, run: RunFiles) -> list[Html | None]:
    """The commands, from the versions to the model's use."""
    folder = f"runs/{run.name}"
    packages = run.environment.packages if run.environment is not None else {}
    pinned = [f"{name}=={shown(version)}" for name, version in packages.items() if name in ("tunewright", "torch")]
    model = f"{folder}/{run.stages[-1].name}/model"
    steps = [
        ("comment_install", ["pip", "install", *pinned]) if pinned else None,
        ("comment_run", ["tunewright", "run", "recipe.yaml", *overrides(run.recipe)]),
        ("comment_evaluate", ["tunewright", "evaluate", folder]),
        ("comment_predict", ["tunewright", "predict", model, "DATA"]),
    ]
    lines = [
        [tag("span", f"# {words(step[0])}", class_="even"), "\n", " ".join(map(shlex.quote, step[1])), "\n\n"]
        for step in steps
        if step is not None
    ]
    return [tag("p", words("reproduce_note")), tag("pre", tag("code", lines), tabindex=0)]


def overrides(recipe: str | None) -> list[str]:
    """The overrides of the command line that a run was started with."""
    _, marker, behind = (recipe or "").partition(OVERRIDES)
    lines = behind.splitlines() if marker else []
    return [line.removeprefix("#").strip() for line in lines if line.startswith("#") and "=" in line]


def sources(words: Words, run: RunFiles) -> Html:
    """Licence and citation of each data set."""
    rows: dict[str, tuple[str, str, str]] = {}
    for stage in run.stages:
        data, unknown = stage.summary.data, words("not_stated")
        rows.setdefault(data.source, (data.source, data.licence or unknown, data.citation or unknown))
    head = [words("data"), words("licence"), words("citation")]
    return table(head, list(rows.values()), caption=words("sources"), text=[2])
