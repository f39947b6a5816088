"""Define the errors that Tunewright raises on purpose.

    TunewrightError
    ├── UserError            exit 2: something you gave is wrong; the message says what, where and the fix
    │   ├── RecipeError      a recipe or an override
    │   ├── DataError        a data file, row or cell
    │   └── ArtifactError    a run folder, checkpoint or saved model
    └── RunFailed            exit 1: the input was valid, the run did not succeed
        ├── Diverged         the loss or the weights are no longer finite, or exploded
        ├── NothingLearned   no gradient, no change in the weights, or a loss that never changes
        ├── TargetMissed     the recipe's `eval.target` was not reached
        └── Stopped          exit 130: Ctrl-C or SIGTERM; a checkpoint was written

An error is built from parts, so that every message has the same structure and no part is forgotten:
what is wrong, where (file, line, row, column), what was found, what was expected, how to fix it.
"""

from __future__ import annotations

from pathlib import Path

# The most characters of a file name or place, and of a line of a message: a stranger's text is never printed at full length.
LONGEST_PART, LONGEST_LINE = 1_000, 10_000


class TunewrightError(Exception):
    """Report a problem with its place, cause and fix; `exit_code` is the exit code of the command line.

    Args:
        problem: one sentence that says what is wrong.
        file: the file in which it was found.
        place: where in that file, in words: "line 3", "row 17, column 'age'".
        found: what is there, shortened if long.
        expected: what should be there.
        fix: what to do next, a command if there is one.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        place: str | None = None,
        found: object = None,
        expected: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = cut(str(file), LONGEST_PART) if file is not None else None
        self.place = cut(place, LONGEST_PART) if place is not None else None
        self.found = shorten(found) if found is not None else None
        self.expected = expected
        self.fix = fix
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """Return the whole message: the place first, as compilers print it, then one line for each known part."""
        where = ", ".join(part for part in (self.file, self.place) if part)
        problem = "\n".join(cut(line, LONGEST_LINE) for line in self.problem.split("\n"))
        lines = [f"{where}: {problem}" if where else problem]
        for label, text in (("found", self.found), ("expected", self.expected), ("fix", self.fix)):
            if text:
                lines.append(f"  {label + ':':<9} {cut(text, LONGEST_LINE)}")
        return "\n".join(lines)


class UserError(TunewrightError):
    """Report that something the user gave is wrong."""

    exit_code = 2


class RecipeError(UserError):
    """Report a wrong recipe or override."""


class DataError(UserError):
    """Report a wrong data file, row or cell."""


class ArtifactError(UserError):
    """Report that a run folder, checkpoint or saved model is missing, damaged or of the wrong kind."""


class RunFailed(TunewrightError):
    """Report that a run failed although its input was valid."""


class Diverged(RunFailed):
    """Report that the loss, the gradients or the weights are no longer finite, or that the loss exploded."""


class NothingLearned(RunFailed):
    """Report that training learns nothing: no gradient, no change in the weights, or a loss that never changes."""


class TargetMissed(RunFailed):
    """Report that the recipe's `eval.target` was not reached."""


class Stopped(RunFailed):
    """Report that the user or the system asked to stop, and that a checkpoint was written."""

    exit_code = 130


def shorten(value: object, limit: int = 200) -> str:
    """Return `value` as one printable line of at most `limit` characters."""
    try:
        text = " ".join(str(value).split())
    except ValueError:  # Python refuses to print integers with this many digits
        text = "a number of thousands of digits"
    text = "".join(character if character.isprintable() else "�" for character in text)
    return cut(text, limit)


def cut(text: str, limit: int) -> str:
    """Return the first `limit` characters of `text`."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
