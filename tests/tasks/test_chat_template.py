"""What the assistant says is trained, with the token that ends its turn, and nothing else: by any template, or an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chat_templates import FAMILIES, MARKS, Family, marked, spoken
from tunewright.data.text.conversations import Turn
from tunewright.data.text.tokenizer import WRITER, build_trainer, save_tokenizer
from tunewright.tasks.language_model.chat_template import TemplateMismatch, default_template, render
from tunewright.tasks.language_model.encoder import load_tokenizer
from tunewright.tasks.text.known_templates import CHATML, PLAIN

ALONE = [Turn("user", "What is two and three?"), Turn("assistant", "It is five.")]
LONGER = [*ALONE, Turn("user", "And  one more?\nSay it."), Turn("assistant", "Six,\n\nI think: 6!")]
WITH_SYSTEM = [Turn("system", "You can count."), *LONGER]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tokenizer")
    texts = [
        f"{turn.role}: {turn.content} [INST] ### User Assistant {number}"
        for turn in WITH_SYSTEM
        for number in range(30)
    ]
    save_tokenizer(build_trainer({"bpe": {"vocabulary": 300}})(texts, WRITER), place, 512, WRITER)
    return place


def tokenizer_for(folder: Path, family: Family) -> Any:
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    tokenizer.eos_token = family.end
    if family.begin is not None:
        tokenizer.bos_token = family.begin
    tokenizer.chat_template = family.template
    return tokenizer


def said(tokenizer: Any, turns: list[Turn]) -> list[str]:
    """The stretches of trained tokens as text."""
    found = render(tokenizer, turns, frozenset({tokenizer.eos_token_id}))
    stretches: list[list[int]] = []
    for number, (token, trained) in enumerate(zip(found.ids, found.trained, strict=True)):
        if trained and (number == 0 or not found.trained[number - 1]):
            stretches.append([])
        if trained:
            stretches[-1].append(token)
    assert len(found.prompts) == len(stretches)
    return [tokenizer.decode(stretch) for stretch in stretches]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("turns", [ALONE, LONGER, WITH_SYSTEM], ids=["alone", "longer", "system"])
def test_what_is_trained(folder: Path, name: str, turns: list[Turn]) -> None:
    family = FAMILIES[name]
    if turns is WITH_SYSTEM and not family.system:
        pytest.skip("this family has no place for it")
    tokenizer = tokenizer_for(folder, family)
    answers = [turn.content for turn in turns if turn.role == "assistant"]
    found = said(tokenizer, turns)
    assert [text.removesuffix(family.end).strip() for text in found] == answers
    assert all(text.endswith(family.end) for text in found)
    # Counted by hand: the answer's own tokens and one for the end, whatever blanks the template puts around them.
    rendered = render(tokenizer, turns, frozenset({tokenizer.eos_token_id}))
    text = tokenizer.apply_chat_template([{"role": t.role, "content": t.content} for t in turns], tokenize=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    place, expected = 0, 0
    for turn in turns:
        start = text.index(turn.content, place)
        place = start + len(turn.content)
        if turn.role == "assistant":
            stop = text.index(family.end, place) + len(family.end)
            begin = start - 1 if text[start - 1] == " " else start
            expected += sum(begin <= first and last <= stop for first, last in encoded["offset_mapping"])
    assert sum(rendered.trained) == expected


def test_twenty_families() -> None:
    assert len(FAMILIES) == 20


WRONG: dict[str, tuple[Family, list[Turn], str]] = {
    "nothing opens the answer": (
        Family(template=FAMILIES["chatml"].template.split("{% if add_generation_prompt")[0], end="<|im_end|>"),
        ALONE,
        "does not open the assistant's turn",
    ),
    "another opening": (
        Family(
            template=FAMILIES["chatml"].template.replace(
                "'<|im_start|>assistant\\n' }}{% endif", "'<|im_start|>bot\\n' }}{% endif"
            ),
            end="<|im_end|>",
        ),
        ALONE,
        "in another way than it writes one",
    ),
    "no end of turn": (
        Family(
            template=FAMILIES["chatml"].template.replace("+ '<|im_end|>\\n'", "+ '\\n'").replace("<|im_end|>", ""),
            end="<|im_end|>",
        ),
        ALONE,
        "would not learn to stop",
    ),
    "ends with another token": (
        Family(template=FAMILIES["chatml"].template, end="</s>"),
        ALONE,
        "generation stops at '</s>'",
    ),
    "the end is written out": (
        Family(template=marked("<|im_start|>", "\\n", "[end]"), end="<|im_end|>"),
        ALONE,
        "would not learn to stop",
    ),
    "the system is left out": (
        Family(template=spoken("USER: ", "ASSISTANT:", "</s>", system=None), end="</s>"),
        WITH_SYSTEM,
        "leaves out or changes what the system says",
    ),
    "only the last turns": (
        Family(template=FAMILIES["chatml"].template.replace("in messages %}", "in messages[-2:] %}"), end="<|im_end|>"),
        LONGER,
        "leaves out or changes",
    ),
    "everything in capitals": (
        Family(
            template=FAMILIES["chatml"].template.replace("message['content']", "message['content'] | upper"),
            end="<|im_end|>",
        ),
        ALONE,
        "leaves out or changes what the user says",
    ),
    "the answer is cut": (
        Family(
            template=FAMILIES["chatml"].template.replace("message['content']", "message['content'][:12]"),
            end="<|im_end|>",
        ),
        ALONE,
        "leaves out or changes",
    ),
    "two beginnings": (
        Family(template="{{ '<s>' }}" + FAMILIES["llama-3"].template, end="<|eot|>", begin="<s>"),
        ALONE,
        "begins twice",
    ),
    "a role that is refused": (
        Family(
            template="{% for message in messages %}{% if message['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{% endfor %}"
            + FAMILIES["chatml"].template,
            end="<|im_end|>",
        ),
        [Turn("user", "Add."), Turn("tool", "5"), Turn("assistant", "Five.")],
        "no tools",
    ),
    "earlier turns change": (
        Family(template="{{ messages | length }}" + FAMILIES["chatml"].template.replace("", "", 1), end="<|im_end|>"),
        LONGER,
        "another way",
    ),
    "the question is glued to the answer": (
        Family(
            template=(
                "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
                "{% if message['role'] == 'assistant' %}{{ '</s>' }}{% endif %}{{ '\\n' }}{% endfor %}"
                "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
            ),
            end="</s>",
        ),
        [Turn("user", "What is it?"), Turn("assistant", "Assistant is the word.")],
        "others in training than when the model is asked",
    ),
    "it does not parse": (
        Family(template="{% for message in messages %}", end="</s>"),
        ALONE,
        "refuses the conversation",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_caught(folder: Path, name: str) -> None:
    family, turns, problem = WRONG[name]
    with pytest.raises(TemplateMismatch) as caught:
        said(tokenizer_for(folder, family), turns)
    assert problem in str(caught.value) and caught.value.fix


def test_at_least_twelve_wrong_cases() -> None:
    assert len(WRONG) >= 12


def test_a_tokenizer_without_a_template_gets_one(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    assert default_template(tokenizer) == CHATML and tokenizer.eos_token == "<|im_end|>"
    tokenizer.chat_template = CHATML
    assert said(tokenizer, WITH_SYSTEM) == ["It is five.<|im_end|>", "Six,\n\nI think: 6!<|im_end|>"]
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = PLAIN
    assert said(tokenizer, WITH_SYSTEM) == [" It is five.<|endoftext|>", " Six,\n\nI think: 6!<|endoftext|>"]
