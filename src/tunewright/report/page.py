"""`report.html`: one self-contained page that says what a run was asked, what it found, and how sure that is.

It loads nothing and runs nothing (its Content-Security-Policy forbids both), and is made from the run folder's small
files alone.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tunewright.files import write_atomic
from tunewright.report.certificate_section import certificate
from tunewright.report.classes_section import calibrated, confused
from tunewright.report.closing_section import environment, reproduce, sources
from tunewright.report.components import stage_title
from tunewright.report.data_section import asked, data_sets
from tunewright.report.explanations_section import why
from tunewright.report.few_shot_section import few_shot
from tunewright.report.headline import headline, title
from tunewright.report.html import Html, tag
from tunewright.report.labels_section import labelled
from tunewright.report.mistakes_section import mistakes
from tunewright.report.other_data_section import other_data
from tunewright.report.plan_section import planned
from tunewright.report.privacy_section import privacy
from tunewright.report.ranking_section import ranking
from tunewright.report.reading import RunFiles, Stage, read_run
from tunewright.report.result_section import compared, hint, result, sliced
from tunewright.report.samples_section import samples
from tunewright.report.speech_section import speech
from tunewright.report.style import style_sheet
from tunewright.report.texts_section import texts
from tunewright.report.training_section import network, training
from tunewright.report.translations import LANGUAGES, Words, report_language

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
)


def write_report(run_folder: Path, *, lang: str = "en") -> Path:
    """Write report.html into a run folder, from the folder's own files.

    Args:
        lang: "en" or "zh".

    Returns:
        The path of the page.

    Raises:
        ArtifactError: no stage of the run was finished, or a file of it is damaged.
        UserError: there is no such language.
    """
    words = Words(report_language(lang))
    path = run_folder / "report.html"
    write_atomic(path, page(words, read_run(run_folder)))
    return path


def page(words: Words, run: RunFiles) -> str:
    """The whole page."""
    sections = _sections(words, run)
    links = [tag("li", tag("a", heading, href=f"#s{index}")) for index, (heading, _) in enumerate(sections, start=1)]
    body = tag(
        "body",
        tag("a", words("skip"), class_="skip", href="#result"),
        tag(
            "div",
            headline(words, run),
            tag("nav", tag("ul", links), aria_label=words("contents")),
            tag("main", [_section(index, *found) for index, found in enumerate(sections, start=1)]),
            _footer(words, run),
            class_="page",
        ),
    )
    return whole_page(words, f"{title(words, run)} · {run.name}", body)


def whole_page(words: Words, name: str, body: Html) -> str:
    """A page that loads and runs nothing, in the language of its words."""
    return "<!doctype html>\n" + tag("html", _head(name), body, lang=LANGUAGES[words.language]) + "\n"


def _head(name: str) -> Html:
    """The head of a page that loads and runs nothing."""
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", name),
        # The sheet is ours: nothing of the data goes into it.
        Html(f"<style>{style_sheet()}</style>"),
    )


def _sections(words: Words, run: RunFiles) -> list[tuple[str, list[Html | None]]]:
    """The headings and contents of the page's parts."""
    plans = planned(words, run)
    found: list[tuple[str, list[Html | None]]] = [(words("plan"), plans)] if plans else []
    found += [(words("asked"), asked(words, run)), (words("data"), data_sets(words, run))]
    found += [(stage_title(words, stage), _stage(words, stage)) for stage in run.stages]
    found.append((words("environment"), environment(words, run)))
    found.append((words("reproduce"), reproduce(words, run)))
    found.append((words("sources"), [sources(words, run)]))
    return found


def _stage(words: Words, stage: Stage) -> list[Html | None]:
    return [
        *network(words, stage),
        *texts(words, stage),
        *training(words, stage),
        *samples(words, stage),
        *few_shot(words, stage),
        *privacy(words, stage),
        *certificate(words, stage),
        *result(words, stage),
        *ranking(words, stage),
        *compared(words, stage),
        *other_data(words, stage),
        *sliced(words, stage),
        *confused(words, stage),
        *labelled(words, stage),
        *calibrated(words, stage),
        *mistakes(words, stage),
        *why(words, stage),
        *speech(words, stage),
        *hint(words, stage),
    ]


def _section(index: int, heading: str, content: list[Html | None]) -> Html:
    return tag("section", tag("h2", heading, id=f"h{index}"), content, id=f"s{index}", aria_labelledby=f"h{index}")


def _footer(words: Words, run: RunFiles) -> Html:
    noted = run.environment.packages.get("tunewright") if run.environment is not None else None
    made_by = words("made_by", version=noted or _version())
    return tag("footer", tag("p", made_by, " ", words("one_file"), " ", words("interval_note"), class_="small"))


def _version() -> str:
    try:
        return version("tunewright")
    except PackageNotFoundError:
        return ""
