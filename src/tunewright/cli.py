"""Define the command line: one short function per command, without logic; Python can call the same functions.

Imports are inside the commands, so that `tunewright --help` does not wait for torch.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from tunewright.errors import Stopped, TunewrightError


class Interruptible(TyperGroup):
    """Group the commands; end each of them on Ctrl-C and SIGTERM with a message and exit code 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Stopped(
                "stopped before it was done", fix="run the same command again: it resumes from what was saved"
            ) from None


app = typer.Typer(
    cls=Interruptible,
    help="One recipe takes you from data to a pretrained, fine-tuned, evaluated and honestly reported model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Read, check and split the data.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides by dotted name, such as train.lr=1e-4.")
]
Runs = Annotated[Path, typer.Option(help="The folder of all runs.")]
Force = Annotated[bool, typer.Option("--force", help="Start even if it cannot fit into memory.")]
Presidio = Annotated[
    str | None,
    typer.Option(metavar="LANGUAGE", help="Also find personal data with Presidio, in this language: en, zh."),
]
Lang = Annotated[str, typer.Option(help="The language of the page: en or zh.")]


@app.command()
def init(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task; `tunewright init list` shows all tasks.")],
    data: Annotated[str | None, typer.Option(help="Your data: a file, a folder, or a named sample set.")] = None,
    out: Annotated[Path, typer.Option(help="Where to write the recipe.")] = Path("recipe.yaml"),
) -> None:
    """Write a commented recipe for your data."""
    from tunewright.commands.init import write_recipe

    typer.echo(write_recipe(task, data, out))


@data_app.command("check")
def data_check(
    recipe: RecipePath,
    overrides: Overrides = None,
    pii: Annotated[
        bool, typer.Option("--pii", help="Also find personal data (PII): addresses, numbers, and, as a guess, names.")
    ] = False,
    presidio: Presidio = None,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check the data for leaks, duplicates, wrong labels and missing values; with --pii also for personal data."""
    from tunewright.commands.data import check_data

    check_data(recipe, overrides or [], personal=pii, language=presidio, as_json=json)


@data_app.command("prepare")
def data_prepare(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Write the splits to this folder instead of the cache.")] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Where texts are filtered: in this process, or on a Ray cluster.")
    ] = "local",
) -> None:
    """Read the data, split it and write it as Parquet; report what was skipped."""
    from tunewright.commands.data import prepare_to

    prepare_to(recipe, overrides or [], out, engine)


@data_app.command("redact")
def data_redact(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A csv, tsv, jsonl or txt file.")],
    out: Annotated[Path, typer.Option(help="The output file, without personal data.")],
    mapped: Annotated[
        Path, typer.Option("--map", help="The file that maps each token to its value; store it separately.")
    ],
    names: Annotated[bool, typer.Option(help="Also redact what may be a name.")] = True,
    presidio: Presidio = None,
) -> None:
    """Replace personal data by tokens such as [EMAIL_1]; `data restore` reverses it with the map."""
    from tunewright.commands.redact import redact_file
    from tunewright.data.text.presidio import presidio as ask_presidio

    besides = None if presidio is None else ask_presidio(presidio, typer.echo)
    counts = redact_file(source, out, mapped, names=names, besides=besides)
    typer.echo(", ".join(f"{kind} {count:,}" for kind, count in sorted(counts.items())) or "no personal data was found")


@data_app.command("restore")
def data_restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `data redact` wrote.")],
    out: Annotated[Path, typer.Option(help="The output file, with the original text.")],
    mapped: Annotated[Path, typer.Option("--map", help="The map that `data redact` wrote.")],
) -> None:
    """Reverse `data redact` with its map."""
    from tunewright.commands.redact import restore_file

    restore_file(source, out, mapped)


@app.command()
def design(
    recipe: Annotated[Path | None, typer.Argument(metavar="[RECIPE]", help="The recipe, a YAML file.")] = None,
    overrides: Overrides = None,
    svg: Annotated[Path | None, typer.Option(help="Write a diagram of the network here.")] = None,
    compute: Annotated[
        float | None,
        typer.Option(help="Without a recipe: the compute budget of a language model in FLOPs, such as 1e18."),
    ] = None,
    tokens: Annotated[float | None, typer.Option(help="With --compute: the available tokens, such as 2e9.")] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Train small language models of several sizes, and fit a scaling law to them.")
    ] = False,
) -> None:
    """Show the network of each stage: layers, shapes, parameters, FLOPs, frozen blocks; or the best size for a compute budget."""
    if compute is not None:
        from tunewright.commands.size import show_sizes

        show_sizes(recipe, compute, tokens)
        return
    from tunewright.commands.design import show_design

    if fit:
        from tunewright.tuning.fit_scaling_law import fit_own_law

        fit_own_law(required(recipe, "tunewright design RECIPE --fit"), overrides or [])
        return
    show_design(required(recipe, "tunewright design RECIPE, or tunewright design --compute 1e18"), overrides or [], svg)


def required(recipe: Path | None, command: str) -> Path:
    """Return the recipe's path.

    Raises:
        RecipeError: no recipe is named.
    """
    from tunewright.errors import RecipeError

    if recipe is None:
        raise RecipeError("no recipe is named", expected="a recipe, a YAML file", fix=command)
    return recipe


@app.command()
def plan(
    recipe: Annotated[Path | None, typer.Argument(metavar="[RECIPE]", help="The recipe, a YAML file.")] = None,
    overrides: Overrides = None,
    on: Annotated[
        str | None, typer.Option(help="Another machine: laptop, a100-80gb, 8xh100, or a file that describes it.")
    ] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="The most that it may need: 16GiB, 24h, 50usd; may be repeated.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="Changes of the result that are allowed to make it fit: lora, 4bit, 8bit, freeze, shorter; may be repeated."
        ),
    ] = None,
    write: Annotated[Path | None, typer.Option(help="Write the recipe, changed so that it fits, to this file.")] = None,
    probe: Annotated[bool, typer.Option(help="Time real training steps of small networks on this machine.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    history: Annotated[
        bool, typer.Option("--history", help="Show predictions of past plans and actual values of their runs.")
    ] = False,
) -> None:
    """Predict memory, time, FLOPs, disk, energy and cost of each stage, and find settings that fit."""
    if history:
        from tunewright.planning.history import show_history

        show_history()
        return
    from tunewright.commands.plan import FitSettings, print_plan

    print_plan(
        required(recipe, "tunewright plan RECIPE"),
        overrides or [],
        on=on,
        fit=FitSettings(budgets=budget or [], allowed=allow or [], write=write),
        probe=probe,
        as_json=as_json,
    )


@app.command()
def choose(
    recipe: RecipePath,
    overrides: Overrides = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(help="A catalog name, a folder, or a hub id, which is downloaded; may be repeated."),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=20, help="Training rows in the sample: by default 500, or 100 for tasks without a target."),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="Also fine-tune each on two thirds of these rows, three times: more reliable, and slower."
        ),
    ] = False,
    runs: Annotated[Path, typer.Option(help="The folder of past runs, whose results count as a prior.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the ranking as JSON.")] = False,
) -> None:
    """Rank pretrained models for the recipe by their features on your data, or (--tune) by fine-tuning them on a sample."""
    from tunewright.commands.choose import ChooseSettings
    from tunewright.commands.choose import choose as rank

    settings = ChooseSettings(names=candidates, sample=sample, tune=tune, runs=runs)
    rank(recipe, overrides or [], settings, as_json=as_json)


@app.command()
def calibrate() -> None:
    """Benchmark this machine, which takes half a minute; plans use the result."""
    from tunewright.hardware.benchmark import calibrate as measure

    measure(typer.echo)


@app.command()
def pretrain(
    recipe: RecipePath, overrides: Overrides = None, runs: Runs = Path("runs"), lang: Lang = "en", force: Force = False
) -> None:
    """Run the recipe up to its last pretrain stage."""
    _carry_out(recipe, overrides, runs, lang, force, "pretrain")


@app.command()
def finetune(
    recipe: RecipePath, overrides: Overrides = None, runs: Runs = Path("runs"), lang: Lang = "en", force: Force = False
) -> None:
    """Run the recipe up to its last finetune stage."""
    _carry_out(recipe, overrides, runs, lang, force, "finetune")


@app.command()
def run(
    recipe: RecipePath, overrides: Overrides = None, runs: Runs = Path("runs"), lang: Lang = "en", force: Force = False
) -> None:
    """Run the whole recipe: train, evaluate, report. Resumes from the newest checkpoint if it was stopped."""
    _carry_out(recipe, overrides, runs, lang, force, None)


def _carry_out(
    recipe: Path, overrides: list[str] | None, runs: Path, lang: str, force: bool, until: str | None
) -> None:
    from tunewright.pipeline.train.launch import carried_out, start_here
    from tunewright.run_recipe import run as carry_out

    if (code := start_here(recipe, overrides or [], sys.argv[1:])) is not None:
        sys.exit(code)
    carried_out(
        lambda group: carry_out(
            recipe, overrides=overrides, runs=runs, until=until, plan=True, force=force, lang=lang, group=group
        )
    )


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/mnist.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[eval.KEY=VALUE]...")] = None,
) -> None:
    """Evaluate a finished run's models again, with other metrics or slices."""
    from tunewright.commands.evaluate import evaluate_run

    evaluate_run(folder, overrides or [])


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/mnist.")],
    lang: Lang = "en",
) -> None:
    """Write the report of a run again, for example in another language."""
    from tunewright.report.page import write_report

    typer.echo(write_report(folder, lang=lang))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A run folder, or the folder of one of its stages.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one, evaluated on the same rows.")],
) -> None:
    """Compare two results on the same test rows: is the difference real?"""
    from tunewright.commands.compare import compare_runs

    compare_runs(first, second)


@app.command("lr-find")
def lr_find(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Suggest a learning rate for the first stage, by a learning rate range test."""
    from tunewright.commands.lr_find import find_learning_rate

    find_learning_rate(recipe, overrides or [])


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model, such as runs/mnist/pretrain/model.")],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A file, an image, a text, JSON, or - for lines of standard input.")
    ],
    form: Annotated[
        Literal["json", "srt", "vtt"],
        typer.Option("--as", help="json: one object per line; srt or vtt: subtitles of a recording."),
    ] = "json",
) -> None:
    """Predict for new data: one JSON object per line, or subtitles."""
    from tunewright.commands.predict import print_predictions

    print_predictions(model, data, form)


@app.command()
def explain(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model, such as runs/mnist/pretrain/model.")],
    examples: Annotated[
        list[str] | None, typer.Argument(metavar="EXAMPLE...", help="Files, images, texts or JSON, as for predict.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="integrated-gradients, shapley or ablation; attention-rollout as a view; default: by the kind of input."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The class, item or text to explain, in place of the model's prediction.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="The most rows to explain per file.")] = 5,
    influence: Annotated[
        bool,
        typer.Option("--influence", help="Also name the training rows that support or oppose each prediction most."),
    ] = False,
    suspects: Annotated[
        bool, typer.Option("--suspects", help="Name the training rows whose labels look wrong, in place of examples.")
    ] = False,
    concept: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FILE: rows that share a concept; how much do predictions depend on it? In place of examples."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write an HTML page that draws the explanations here.")] = None,
    lang: Lang = "en",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Explain predictions by the parts of the input, and check whether the explanation is faithful."""
    from tunewright.commands.explain import ExplainSettings, name_suspects
    from tunewright.commands.explain import explain as explain_answers
    from tunewright.errors import RecipeError
    from tunewright.explaining.concepts import print_concepts

    if suspects:
        name_suspects(model, as_json=as_json)
        return
    if concept:
        print_concepts(model, concept, as_json=as_json)
        return
    if not examples:
        raise RecipeError(
            "there is nothing to explain",
            expected="an example, --concept or --suspects",
            fix="tunewright explain MODEL EXAMPLE",
        )
    explain_answers(
        model,
        examples,
        ExplainSettings(method=method, target=target, rows=rows, influence=influence),
        html=html,
        lang=lang,
        as_json=as_json,
    )


@app.command()
def tune(
    recipe: RecipePath,
    overrides: Overrides = None,
    trials: Annotated[
        int, typer.Option(min=1, help="The number of finished trials to reach, earlier ones included.")
    ] = 20,
    sampler: Annotated[str, typer.Option(help="tpe, random or grid.")] = "tpe",
    prune: Annotated[bool, typer.Option(help="Stop trials early that are behind others (ASHA).")] = True,
    hours: Annotated[float | None, typer.Option(min=0, help="Start no trial after this many hours.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that run trials in parallel.")] = 1,
    seeds: Annotated[
        int,
        typer.Option(min=0, help="Train and test the winner and the unchanged recipe with this many seeds; 0: do not."),
    ] = 3,
    runs: Annotated[Path, typer.Option(help="The folder for the folder of the search.")] = Path("runs"),
    lang: Lang = "en",
    worker: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Search for better hyperparameters on the validation rows, and test whether they really are better."""
    from tunewright.commands.tune import tune
    from tunewright.console import Console
    from tunewright.tuning.trials import SearchSettings, parse_sampler, run_worker

    settings = SearchSettings(trials=trials, sampler=parse_sampler(sampler), prune=prune, hours=hours, workers=workers)
    if worker:
        run_worker(recipe, overrides or [], settings, number=worker, runs=runs)
        return
    tune(recipe, overrides or [], settings, seeds=seeds, runs=runs, lang=lang, console=Console())


@app.command()
def privacy(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder inside its run.")],
    references: Annotated[
        int,
        typer.Option(min=0, help="Train this many reference models on random halves of the rows (LiRA), 4 or more."),
    ] = 0,
    one_run: Annotated[
        bool, typer.Option("--one-run", help="Train again, and report which ε that training exceeds.")
    ] = False,
    canaries: Annotated[
        int, typer.Option(min=0, help="Train again with this many made-up secrets (canaries) among the texts.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="The random seed for the choice of rows.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Audit a model's privacy by attacking it: what does it leak about its training data?"""
    from tunewright.commands.privacy_audit import print_audit
    from tunewright.console import Console

    print_audit(
        model, references=references, one_run=one_run, canaries=canaries, seed=seed, as_json=as_json, console=Console()
    )


@app.command()
def recommend(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model of item-recommendation.")],
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id, as in the data.")],
    count: Annotated[int, typer.Option(min=1, max=10_000, help="The number of items.")] = 10,
) -> None:
    """Recommend the items that a user is most likely to choose next, each with its score."""
    from tunewright.commands.recommend import recommend as print_items

    print_items(model, user, count)


@app.command()
def chat(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved language model.")],
    temperature: Annotated[
        float,
        typer.Option(
            min=0, help="The sampling temperature; 0: always the likeliest token (greedy); 1: the model's distribution."
        ),
    ] = 0.8,
    top_p: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Sample from the likeliest tokens with this total probability (nucleus sampling)."
        ),
    ] = 0.95,
    most: Annotated[int, typer.Option(min=1, help="The most tokens in an answer.")] = 512,
    seed: Annotated[int, typer.Option(help="The random seed of the sampling.")] = 0,
) -> None:
    """Chat with a language model in the terminal; without a chat template it continues your text."""
    from tunewright.commands.chat import Drawing
    from tunewright.commands.chat import chat as talk

    talk(model, Drawing(temperature=temperature, top_p=top_p, most=most, seed=seed))


@app.command()
def merge(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model with an adapter.")],
    out: Annotated[Path, typer.Option(help="The folder for the merged model.")],
) -> None:
    """Merge an adapter into the weights, and verify that the model stays the same."""
    from tunewright.commands.merge import merge_adapter

    merge_adapter(model, out)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model.")],
    to: Annotated[
        str,
        typer.Option(
            help="onnx, int8 (ONNX with 8-bit weights), torch (torch.export), gguf (llama.cpp) or keras (a .keras file)."
        ),
    ] = "onnx",
    out: Annotated[Path | None, typer.Option(help="The output folder; default: export, next to the model.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Rows for the verification; default: the test rows of the model's run.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="The largest allowed difference of an output, relative to 1 + its magnitude.")
    ] = 1e-4,
) -> None:
    """Export a model to another format, and verify on real rows that it is the same model."""
    from tunewright.commands.export import export as write_export
    from tunewright.console import Console

    write_export(model, to, out, data=data, tolerance=tolerance, console=Console())


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model.")],
    host: Annotated[
        str, typer.Option(help="The address to listen on; any other than this machine needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the token that requests must send as Authorization: Bearer; "
            "default: the variable TUNEWRIGHT_TOKEN."
        ),
    ] = None,
) -> None:
    """Serve a model over HTTP, with a page to try it; language models with OpenAI's API."""
    from tunewright.console import Console
    from tunewright.serving.start import serve as start

    with suppress(KeyboardInterrupt):  # the way to stop a service
        start(model, host=host, port=port, token_file=token_file, console=Console())


@app.command()
def ui(
    runs: Runs = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 8001,
) -> None:
    """Show all runs on a local page: results, live learning curves, differences of recipes."""
    from tunewright.console import Console
    from tunewright.serving.start import show_runs

    with suppress(KeyboardInterrupt):
        show_runs(runs, port, Console())


@app.command()
def doctor() -> None:
    """Check this installation and machine: versions, hardware, limits, what is missing and how to install it."""
    from tunewright.commands.doctor import examine
    from tunewright.console import Console

    if not examine(Console()):
        sys.exit(1)


@app.command()
def schema() -> None:
    """Print the recipe's JSON Schema, for editors."""
    import json

    from tunewright.recipe.output import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line. A user's mistake ends with a message and exit code 2, a failed run with a message and exit code 1."""
    # Python processes that a library starts must not import modules of the working folder, which may be a stranger's.
    os.environ["PYTHONSAFEPATH"] = "1"
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except TunewrightError as error:
        typer.echo(f"error: {error.message}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone; Python must not report that again while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        from tunewright.files import refusal

        if (refused := refusal(error)) is None:
            raise
        typer.echo(f"error: {refused.message}", err=True)
        sys.exit(refused.exit_code)
