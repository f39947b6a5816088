"""Find personal data by Presidio in addition to our own rules: names, places and dates by a spaCy model, and numbers of many countries.

Neither Presidio nor spaCy comes with Tunewright. The spaCy model is one that is installed; nothing is downloaded. Without one only
what Presidio knows by patterns is found, which the caller gets to know.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from tunewright.data.text.pii import Finder, Personal
from tunewright.errors import RecipeError

# What Presidio is not this sure of is passed over.
SURE = 0.5


def presidio(language: str, say: Callable[[str], None]) -> Finder:
    """Return what Presidio finds in a text of a language.

    Args:
        language: two letters, such as en or zh.
        say: gets a sentence about which model looks for names.

    Raises:
        RecipeError: Presidio is not installed.
    """
    try:
        analyzer: Any = import_module("presidio_analyzer")
        engines: Any = import_module("presidio_analyzer.nlp_engine")
        spacy: Any = import_module("spacy")
    except ImportError:
        raise RecipeError(
            "Presidio is not installed", place="--presidio", fix="pip install presidio-analyzer, and a spaCy model"
        ) from None
    models = sorted(name for name in spacy.util.get_installed_models() if name.startswith(f"{language}_"))
    engine = engines.SpacyNlpEngine(models=[{"lang_code": language, "model_name": models[-1] if models else ""}])
    engine.nlp = {language: spacy.load(models[-1]) if models else spacy.blank(language)}
    say(
        f"Presidio, with spaCy's {models[-1]}"
        if models
        else f"Presidio by patterns alone: no spaCy model for {language!r} is installed, so it looks for no names"
    )
    known = analyzer.AnalyzerEngine(nlp_engine=engine, supported_languages=[language])

    def find(text: str) -> list[Personal]:
        found = known.analyze(text=text, language=language, score_threshold=SURE)
        return [
            Personal(
                start=one.start,
                stop=one.end,
                kind=f"{one.entity_type.lower().replace('_', ' ')} (Presidio)",
                text=text[one.start : one.end],
            )
            for one in sorted(found, key=lambda one: (-one.score, one.start))
        ]

    return find
