"""`tunewright explain --html`: explanations as a page of their own."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.report.explanations_section import explained
from tunewright.report.html import tag
from tunewright.report.page import whole_page
from tunewright.report.translations import Words
from tunewright.runs.summary.explanation import ExplanationSummary


def explanation_page(words: Words, name: str, entries: Sequence[ExplanationSummary]) -> str:
    """One self-contained page that loads and runs nothing."""
    main = tag("main", [tag("section", explained(words, entry, "h2")) for entry in entries])
    head = tag("h1", words("why_title")), tag("p", words("why_key"), class_="small")
    body = tag("body", tag("div", *head, main, class_="page"))
    return whole_page(words, f"{words('why_title')} {name}", body)
