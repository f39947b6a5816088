"""The freeze certificate: what was frozen is unchanged, what was trained has changed."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.charts import seal
from tunewright.report.components import LONG, fold_if, number, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage, shown
from tunewright.report.translations import Words
from tunewright.runs.summary.model import FrozenBlock, TrainedBlock

# More blocks than this are folded.
OPEN_BLOCKS = 6


def certificate(words: Words, stage: Stage) -> list[Html | None]:
    """The verdict as a seal, the counts, the warnings, and every block."""
    found = stage.summary.certificate
    if (intact := found.intact) is None:
        return []
    title, verdict, look = words("certificate"), words("passed" if intact else "failed"), "good" if intact else "bad"
    sentences = [_frozen(words, found.frozen), _trained(words, found.trained) if found.trained else None]
    return [
        tag("h3", title),
        tag(
            "div",
            seal(intact, f"{title}{words('colon')}{verdict}"),
            tag("div", tag("p", verdict, class_=f"name {look}"), [tag("p", said) for said in sentences if said]),
            class_="certificate",
        ),
        *_warnings(words, [shown(entry) for entry in found.warnings]),
        _blocks(words, found.frozen, found.trained),
    ]


def _frozen(words: Words, frozen: list[FrozenBlock]) -> str:
    return words(
        "frozen_count",
        identical=sum(block.identical for block in frozen),
        blocks=len(frozen),
        tensors=numbers.count(sum(block.tensors for block in frozen)),
        parameters=numbers.count(sum(block.parameters for block in frozen)),
    )


def _trained(words: Words, trained: list[TrainedBlock]) -> str:
    changed = sum(block.changed for block in trained)
    unchanged = sum(len(block.unchanged) for block in trained)
    return words("trained_count", changed=numbers.count(changed), tensors=numbers.count(changed + unchanged))


def _warnings(words: Words, warnings: list[str]) -> list[Html | None]:
    if not warnings:
        return []
    listed = tag("ul", [tag("li", line, lang="en") for line in warnings], class_="small")
    return [tag("p", words("warnings")), fold_if(len(warnings) > LONG, numbers.count(len(warnings)), listed)]


def _blocks(words: Words, frozen: list[FrozenBlock], trained: list[TrainedBlock]) -> Html:
    rows = [_block(block, words("frozen"), _frozen_finding(words, block)) for block in frozen]
    rows += [_block(block, words("trained"), _trained_finding(words, block)) for block in trained]
    head = [words(key) for key in ("block", "state", "tensors", "parameters", "finding")]
    blocks = table(head, rows, caption=words("all_blocks"), right=[2, 3])
    return fold_if(len(rows) > OPEN_BLOCKS, words("all_blocks"), blocks)


def _block(block: FrozenBlock | TrainedBlock, state: str, finding: Html) -> tuple[object, ...]:
    return (
        tag("code", shown(block.block)),
        state,
        number(numbers.count(block.tensors)),
        number(numbers.count(block.parameters)),
        finding,
    )


def _frozen_finding(words: Words, block: FrozenBlock) -> Html:
    if block.identical:
        return tag("span", f"✓ {words('identical')}", class_="good")
    return tag("span", f"✗ {words('differs')}", class_="bad")


def _trained_finding(words: Words, block: TrainedBlock) -> Html:
    if not block.unchanged:
        return tag("span", f"✓ {words('all_changed')}", class_="good")
    names = words("comma").join(map(shown, block.unchanged))
    return tag("span", f"! {words('some_unchanged', names=names)}", class_="warn")
