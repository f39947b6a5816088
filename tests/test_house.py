"""The house rules that a machine can hold: nothing unsafe, a light start, every command in the docs works."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from repository import REPOSITORY

SOURCE = REPOSITORY / "src" / "tunewright"
DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "README.zh-CN.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]

FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "torch.load",
    "pickle.load",
    "pickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "marshal.loads",
    "subprocess.getoutput",
}
FORBIDDEN_IMPORTS = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
FORBIDDEN_KEYWORDS = {("shell", True), ("allow_pickle", True), ("trust_remote_code", True), ("weights_only", False)}


def unsafe(code: str) -> list[str]:
    """What in a piece of code could run somebody else's."""
    found: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in FORBIDDEN_IMPORTS]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_IMPORTS:
            found.append(str(node.module))
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name == "torch.load" and any(ast.unparse(k) == "weights_only=True" for k in node.keywords):
                continue
            found += [name] if name in FORBIDDEN_CALLS else []
            found += [
                f"{k.arg}={k.value.value}"
                for k in node.keywords
                if isinstance(k.value, ast.Constant) and (k.arg, k.value.value) in FORBIDDEN_KEYWORDS
            ]
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_in_the_source_can_run_foreign_code(path: Path) -> None:
    assert unsafe(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "exec('1')",
        "import os\nos.system('x')",
        "torch.load('x')",
        "np.load('x', allow_pickle=True)",
        "subprocess.run('x', shell=True)",
        "yaml.load(x)",
        "f(trust_remote_code=True)",
        "torch.load('x', weights_only=False)",
    ],
)
def test_the_test_above_can_fail(code: str) -> None:
    assert unsafe(code)


LONGEST_FUNCTION, MOST_PARAMETERS = 60, 7
# Functions that are still longer, or take more parameters, than that: only ever remove lines.
LONG_FUNCTIONS = {
    "pipeline.build.parts:build_parts",
    "report.charts:line_chart",
    "report.charts:whisker_chart",
    "report.heat_map:heat_map",
    "run_recipe:run",
    "serving.app:make_app",
    "training.distributed.fsdp:shard",
}
WIDE_FUNCTIONS = {
    "run_recipe:_carry_out",
    "run_recipe:run",
}


def functions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Return every function and method of a module with its dotted name."""
    found: list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]] = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                found.append((prefix + child.name, child))
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            visit(child, f"{prefix}{child.name}." if named else prefix)

    visit(tree, "")
    return found


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of a function's parameters, without self and cls."""
    given = function.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [entry.arg for entry in every if entry is not None and entry.arg not in ("self", "cls")]


def test_functions_are_short_and_take_few_parameters() -> None:
    """The commands of cli.py are exempt: each has a parameter for each option."""
    long: set[str] = set()
    wide: set[str] = set()
    for path in set(SOURCE.rglob("*.py")) - {SOURCE / "cli.py"}:
        for name, function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{path.relative_to(SOURCE).with_suffix('').as_posix().replace('/', '.')}:{name}"
            assert function.end_lineno is not None
            if function.end_lineno - function.lineno + 1 > LONGEST_FUNCTION:
                long.add(place)
            if len(parameters(function)) > MOST_PARAMETERS:
                wide.add(place)
    assert long == LONG_FUNCTIONS, sorted(long ^ LONG_FUNCTIONS)
    assert wide == WIDE_FUNCTIONS, sorted(wide ^ WIDE_FUNCTIONS)


def test_lengths_and_parameters_are_counted() -> None:
    code = "class A:\n    def f(self, a, /, b, *c, d, **e):\n        def g():\n            pass\n"
    (outer, function), (inner, _) = functions(ast.parse(code))
    assert (outer, inner) == ("A.f", "A.f.g") and parameters(function) == ["a", "b", "c", "d", "e"]


# Rooms for several kinds of input, network or table have files of the same name; so do a command and what it calls.
# The files of runs/summary are named after the parts of summary.json that they describe.
PARALLEL = {
    "__init__", "augmentation", "base", "decode", "describe", "encoder", "evaluation", "explain", "export", "modality", "registry",
    "request", "plan",
}  # fmt: skip
# Names of files that were replaced by the standard term.
REPLACED = {
    "answers", "audit", "bare", "beside", "budget", "columns", "combined", "dictation", "engine",
    "explained", "fields", "foreign", "foretelling", "framing", "given", "handed_on", "heard", "hearing", "hidden_tokens",
    "hint", "hollow", "in_backward", "ingredients", "job", "kept", "liked", "liveness", "narrow", "near_texts",
    "once_more", "pairs", "part_files", "personal", "picture", "piecewise", "pixels", "plan_division", "plan_table",
    "preferred", "prefix", "published", "recogniser", "recolour", "rehearsal", "roles", "rows", "run", "selection",
    "setup", "sharing", "sides", "sound_changes", "spoken", "stopping", "strategy", "surgery", "suspects", "tables",
    "team", "text_rules", "texts", "together", "token_loss", "tokens", "training", "transformer", "tuned", "usable",
    "warping", "why", "words", "writing",
}  # fmt: skip


def test_file_names_are_standard_terms_and_unique() -> None:
    stems = Counter(path.stem for path in SOURCE.rglob("*.py") if path.parent != SOURCE / "runs" / "summary")
    assert {stem for stem, count in stems.items() if count > 1} <= PARALLEL
    tests = {path.stem.removeprefix("test_") for path in (REPOSITORY / "tests").rglob("*.py")}
    assert not REPLACED & (stems.keys() | tests)


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        timeout=120,
        env={**os.environ, "COLUMNS": "200"},
    )


def tunewright(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return python("-c", "from tunewright.cli import main; main()", *arguments, cwd=cwd)


def test_help_does_not_wait_for_heavy_libraries() -> None:
    code = "import sys\nfrom tunewright.cli import app\nfrom typer.main import get_command\nget_command(app)\nprint([m for m in ('torch', 'numpy', 'pyarrow', 'sklearn', 'pydantic', 'PIL') if m in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"
    text = tunewright("--help").stdout
    for verb in (
        "init",
        "data",
        "design",
        "plan",
        "recommend",
        "pretrain",
        "finetune",
        "run",
        "evaluate",
        "report",
        "compare",
        "lr-find",
        "predict",
        "chat",
        "merge",
        "schema",
    ):
        assert re.search(rf"^\s+{verb}\s", text, re.MULTILINE), verb


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "missing.yaml"], 2, "no such recipe"),
        (["run", "bad.yaml"], 2, "did you mean epochs?"),
        (["run", "good.yaml", "train.lr"], 2, "key=value"),
        (["data", "check", "missing.yaml"], 2, "no such recipe"),
        (["evaluate", "nowhere"], 2, "run.json is missing"),
        (["report", "nowhere"], 2, "no such run folder"),
        (["compare", "a", "b"], 2, "no predictions"),
        (["predict", "nowhere", "x.csv"], 2, "missing"),
        (["init", "vision"], 2, "no such task"),
        (["finetune", "good.yaml"], 2, "no finetune stage"),
        (["run", "diverges.yaml"], 1, "not finite"),
        (["run", "missed.yaml"], 1, "target was missed"),
        (["nonsense"], 2, "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_end_with_a_message_and_not_with_a_traceback(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    good = "task: tabular-classification\ndata: {source: wine}\ntrain: {epochs: 1}\neval: {resamples: 100}\n"
    (tmp_path / "good.yaml").write_text(good)
    (tmp_path / "bad.yaml").write_text(good.replace("epochs", "epocs"))
    (tmp_path / "diverges.yaml").write_text(good.replace("epochs: 1", "epochs: 9, optimizer: sgd, lr: 1.0e30"))
    (tmp_path / "missed.yaml").write_text(good.replace("resamples: 100", "resamples: 100, target: {accuracy: 1.1}"))
    done = tunewright(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr


def commands() -> list[tuple[str, str]]:
    """Every `tunewright …` line in a shell block of the documents, and every make target; each once."""
    found: dict[str, str] = {}
    for document in DOCUMENTS:
        for block in re.findall(r"```(?:bash|sh)\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.split("#")[0].strip()
                if command:
                    found.setdefault(command, document.name)
    return [(document, command) for command, document in found.items()]


def test_there_are_commands_in_the_documents() -> None:
    assert len(commands()) > 10


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader of the docs would have it after the commands above the one that is tried."""
    place = tmp_path_factory.mktemp("docs")
    (place / "examples").symlink_to(REPOSITORY / "examples")
    (place / "reviews.csv").write_text(
        "length,stars,label\n" + "".join(f"{i % 90},{i % 5},{'good' if i % 5 > 2 else 'bad'}\n" for i in range(300))
    )
    (place / "domain.txt").write_text("".join(f"the {i % 7}th room was {i % 5 + 1} stairs up\n" for i in range(60)))
    talk = [
        {"messages": [{"role": "user", "content": f"is it {i}?"}, {"role": "assistant", "content": f"it is {i}!"}]}
        for i in range(60)
    ]
    (place / "talk.jsonl").write_text("\n".join(map(json.dumps, talk)))
    (place / "talk.yaml").write_text(
        "task: supervised-fine-tuning\ndata: {source: talk.jsonl}\ntrain: {epochs: 1}\n"
        "model: {backbone: {gpt: {layers: 1, width: 32, heads: 2, context: 64}}, tokenizer: {bpe: {vocabulary: 270}}}\n"
    )
    assert tunewright("run", "talk.yaml", cwd=place).returncode == 0
    words = [
        "the",
        "of",
        "and",
        "with",
        "house",
        "garden",
        "river",
        "stone",
        "bread",
        "winter",
        "letter",
        "window",
        "morning",
        "silver",
        "paper",
    ]
    draw = random.Random(0)
    web = [" ".join(draw.choices(words, k=draw.randrange(30, 90))) + "." for _ in range(200)]
    (place / "web.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in web))
    dark = np.random.default_rng(0).integers(0, 60, (20, 28, 28)).astype(np.uint8)
    np.savez(place / "dark.npz", x=dark, y=np.array(["0", "1"] * 10))
    (place / "web.yaml").write_text(
        "task: language-modeling\ndata: {source: web.jsonl, input: text, clean: {rules: gopher, near_duplicates: true}}\n"
    )
    (place / "tuned.yaml").write_text(
        "task: image-classification\ndata: {source: digits, limit: 400}\nmodel: {layers: [flatten, {dense: 10}]}\n"
        "train: {epochs: 2}\nsearch: {train.lr: {log: [1e-3, 1e-1]}}\n"
    )
    for name in ("a", "b"):
        (place / f"{name}.yaml").write_text(
            f"task: image-classification\ndata: {{source: digits}}\nseed: 1\nmodel: {{layers: [flatten, {{dense: {8 if name == 'a' else 16}}}, {{dense: auto}}]}}\ntrain: {{epochs: 1}}\n"
        )
        assert tunewright("run", f"{name}.yaml", cwd=place).returncode == 0
    # What the commands above those that use a recipe or a run leave, made here, from less data: they may run elsewhere.
    written = tunewright(
        "init", "tabular-classification", "--data", "reviews.csv", "--out", "my-recipe.yaml", cwd=place
    )
    assert written.returncode == 0, written.stderr
    fast = ["data.limit=600", "train.epochs=1", "eval.seeds=1", "eval.target={}", "stages.1.finetune.train.epochs=1"]
    assert tunewright("run", "examples/mnist/recipe.yaml", *fast, cwd=place).returncode == 0
    assert tunewright("run", "examples/tiny-char-gpt/recipe.yaml", "data.limit=30", cwd=place).returncode == 0
    redacted = tunewright("data", "redact", "reviews.csv", "--out", "clean.csv", "--map", "map.json", cwd=place)
    assert redacted.returncode == 0, redacted.stderr
    return place


@pytest.mark.parametrize(("document", "command"), commands(), ids=lambda value: value)
def test_every_command_in_the_documents_works(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, document: str, command: str
) -> None:
    words = shlex.split(command)
    while re.fullmatch(r"TUNEWRIGHT_\w+=\S+", words[0]):
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    if words[0] == "make":
        targets = re.findall(r"^(\w[\w-]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
        return
    if words[:2] == ["pip", "install"] or words[0] == "git":
        return
    assert words[0] in ("tunewright", "python"), command
    if words[0] == "python":
        assert (REPOSITORY / words[1]).exists()
        return
    if words[1] == "init" or "redact" in words:
        for option, value in zip(words, words[1:]):
            if option in ("--out", "--map"):
                (workplace / value).unlink(missing_ok=True)
    if words[1] in ("run", "pretrain", "finetune"):
        if "examples" in command or "mnist" in command:
            words += [
                f"data.limit={30 if 'gpt' in command else 3000 if 'movielens' in command else 300}",
                "train.epochs=1",
                "eval.seeds=1",
                "eval.resamples=100",
                "eval.target={}",
            ]
        if "examples/mnist" in command:
            words.append("stages.1.finetune.train.epochs=1")
    done = tunewright(*words[1:], cwd=workplace)
    assert done.returncode == 0, done.stderr


def test_no_test_imports_another_test() -> None:
    """What several tests need is in tests/helpers."""
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
            if isinstance(node, ast.ImportFrom):
                imported |= {str(node.module), *(name.name for name in node.names)}
        modules = {name.rpartition(".")[2] for name in imported}
        assert not [name for name in modules if name.startswith("test_") or name == "conftest"], path


@pytest.mark.parametrize("document", ["tutorial.md", "tutorial.zh-CN.md"])
def test_the_lines_that_the_tutorial_points_to_are_there(document: str) -> None:
    text = (REPOSITORY / "docs" / document).read_text(encoding="utf-8")
    pointed = re.findall(r"`((?:\w+/)+\w+\.py)`[,，] ?`(\w+)`", text)
    assert len(pointed) >= 20
    for file, name in pointed:
        tree = ast.parse((SOURCE / file).read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert name in defined, f"{file}: {name}"


@pytest.mark.slow
def test_the_notebook_does_what_it_says(workplace: Path) -> None:
    """Its commands and its Python, cell after cell; the installation aside."""
    notebook = json.loads((REPOSITORY / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 5
    code = ""
    for cell in cells:
        for line in cell.splitlines():
            if line.startswith("!"):
                done = tunewright(*shlex.split(line.removeprefix("!tunewright ")), cwd=workplace)
                assert done.returncode == 0, done.stderr
        if not cell.startswith(("!", "%")):
            code += cell + "\n"
    done = python("-c", code, cwd=workplace)
    assert done.returncode == 0, done.stderr


def python_blocks() -> list[tuple[str, str]]:
    return [
        (d.name, block)
        for d in DOCUMENTS
        for block in re.findall(r"```python\n(.*?)```", d.read_text(encoding="utf-8"), re.DOTALL)
    ]


@pytest.mark.parametrize(("document", "block"), python_blocks(), ids=lambda value: value[:30])
def test_every_python_block_in_the_documents_works(workplace: Path, document: str, block: str) -> None:
    done = python("-c", block, cwd=workplace)
    assert done.returncode == 0, done.stderr


def test_every_recipe_in_the_documents_loads(tmp_path: Path) -> None:
    from tunewright.recipe.loading import load_recipe
    from tunewright.tasks.registry import task_defaults

    count = 0
    for document in DOCUMENTS:
        for block in re.findall(r"```yaml\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
            path = tmp_path / f"{count}.yaml"
            path.write_text(block, encoding="utf-8")
            load_recipe(path, defaults=task_defaults)
            count += 1
    assert count >= 2


def test_the_house_speaks_of_itself_alone() -> None:
    """No registry's host and no path of a build machine in what is published."""
    hosts = "|".join(
        re.escape(name)
        for name in ("pypi" + ".org", "registry" + ".npmjs", "deb" + ".debian", "/o" + "pt/", "/wo" + "rk/")
    )
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=REPOSITORY)
    files = listed.stdout.splitlines() if listed.returncode == 0 else []
    for name in files:
        path = REPOSITORY / name
        if (
            path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ""}
            and path.is_file()
            and path.stat().st_size < 1_000_000
        ):
            assert not re.search(hosts, path.read_text(encoding="utf-8", errors="ignore")), name


KINDS = re.compile(
    r"isinstance\([^)]*(Encoder|Examples|Network|Transformer|GPT|Recommender|Recogniser|Whisper|Backbone)\b"
)


def test_encoders_examples_and_networks_are_asked_and_not_their_classes() -> None:
    rooms = (path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))
    others = [path for path in rooms if path.parts[0] not in ("tasks", "models")]
    assert [str(path) for path in others if KINDS.search((SOURCE / path).read_text())] == []


# Where names of tasks, purposes and metrics stand: where they are defined or chosen, and in tables by name.
DEFINING = ("tasks/", "evaluation/metrics/", "models/hub/purposes.py")
NAMING = {
    "models/hub/model_facts.py",  # a table of published models, by what they were trained for
    "data/sources/sample_sets.py",  # a table of sample sets, by what they are for
    "report/translations.py",  # a dictionary
}


def test_names_of_tasks_purposes_and_metrics_stand_in_their_own_files() -> None:
    from tunewright.evaluation.metrics import METRICS
    from tunewright.models.hub.purposes import PURPOSES
    from tunewright.tasks.registry import TASKS

    names = {*TASKS.builtin, *PURPOSES, *METRICS.builtin}
    found = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names
    }
    assert {name for name in found if not name.startswith(DEFINING)} == NAMING


def test_contributing_shows_the_layers_that_are_checked() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    shown = (REPOSITORY / "CONTRIBUTING.md").read_text().split("```")[3].split("\n")[1:-1]
    assert shown[0] == "cli | __init__"
    assert shown[1:] == [layer.replace("tunewright.", "") for layer in layers[1:]]
