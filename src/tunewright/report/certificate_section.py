"""The freeze certificate: what was to stay has stayed, what was to move has moved."""

from __future__ import annotations

from typing import Any

from tunewright.report import numbers
from tunewright.report.charts import seal
from tunewright.report.components import LONG, fold_if, number, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage, mapping, number_from, sequence, shown
from tunewright.report.translations import Words

# More blocks than this are folded.
OPEN_BLOCKS = 6


def certificate(words: Words, stage: Stage) -> list[Html | None]:
    """The verdict as a seal, the counts, the warnings, and every block."""
    found, passed = stage.part("certificate"), stage.kept_frozen
    if passed is None:
        return []
    frozen, trained = ([mapping(entry) for entry in sequence(found.get(key))] for key in ("frozen", "trained"))
    title, verdict, look = words("certificate"), words("passed" if passed else "failed"), "good" if passed else "bad"
    sentences = [_kept(words, frozen), _moved(words, trained) if trained else None]
    return [
        tag("h3", title),
        tag(
            "div",
            seal(passed, f"{title}{words('colon')}{verdict}"),
            tag("div", tag("p", verdict, class_=f"name {look}"), [tag("p", said) for said in sentences if said]),
            class_="certificate",
        ),
        *_warnings(words, [shown(entry) for entry in sequence(found.get("warnings"))]),
        _blocks(words, frozen, trained),
    ]


def _kept(words: Words, frozen: list[dict[str, Any]]) -> str:
    return words(
        "frozen_count",
        identical=sum(entry.get("identical") is True for entry in frozen),
        blocks=len(frozen),
        tensors=numbers.count(sum(_whole(entry, "tensors") for entry in frozen)),
        parameters=numbers.count(sum(_whole(entry, "parameters") for entry in frozen)),
    )


def _moved(words: Words, trained: list[dict[str, Any]]) -> str:
    changed = sum(_whole(entry, "changed") for entry in trained)
    still = sum(len(sequence(entry.get("unchanged"))) for entry in trained)
    return words("trained_count", changed=numbers.count(changed), tensors=numbers.count(changed + still))


def _warnings(words: Words, warnings: list[str]) -> list[Html | None]:
    if not warnings:
        return []
    listed = tag("ul", [tag("li", line, lang="en") for line in warnings], class_="small")
    return [tag("p", words("warnings")), fold_if(len(warnings) > LONG, numbers.count(len(warnings)), listed)]


def _blocks(words: Words, frozen: list[dict[str, Any]], trained: list[dict[str, Any]]) -> Html:
    rows = [_block(entry, words("frozen"), _frozen_finding(words, entry)) for entry in frozen]
    rows += [_block(entry, words("trained"), _trained_finding(words, entry)) for entry in trained]
    head = [words(key) for key in ("block", "moves", "tensors", "parameters", "finding")]
    blocks = table(head, rows, caption=words("all_blocks"), right=[2, 3])
    return fold_if(len(rows) > OPEN_BLOCKS, words("all_blocks"), blocks)


def _block(entry: dict[str, Any], moves: str, finding: Html) -> tuple[object, ...]:
    return (
        tag("code", shown(entry.get("block", "?"))),
        moves,
        number(numbers.count(_whole(entry, "tensors"))),
        number(numbers.count(_whole(entry, "parameters"))),
        finding,
    )


def _frozen_finding(words: Words, entry: dict[str, Any]) -> Html:
    same = entry.get("identical") is True
    return tag(
        "span", f"{'✓' if same else '✗'} {words('identical' if same else 'differs')}", class_="good" if same else "bad"
    )


def _trained_finding(words: Words, entry: dict[str, Any]) -> Html:
    unchanged = [shown(name) for name in sequence(entry.get("unchanged"))]
    if not unchanged:
        return tag("span", f"✓ {words('all_changed')}", class_="good")
    return tag("span", f"! {words('some_unchanged', names=words('comma').join(unchanged))}", class_="warn")


def _whole(entry: dict[str, Any], key: str) -> int:
    return int(number_from(entry.get(key)) or 0)
