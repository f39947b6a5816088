"""Chat templates in the styles of the common model families, written for these tests."""

from __future__ import annotations

from dataclasses import dataclass

GENERATE = "{% if add_generation_prompt %}"


@dataclass(frozen=True, kw_only=True)
class Family:
    """A chat template."""

    template: str
    end: str
    """The token that ends a turn of the assistant."""
    system: bool = True
    """Whether there is a system turn."""
    begin: str | None = None
    """The token that a conversation begins with."""


def marked(start: str, middle: str, end: str, *, between: str = "\n", names: dict[str, str] | None = None) -> str:
    """Return a template whose turns are: start role middle content end between."""
    role = "message['role']"
    for ours, theirs in (names or {}).items():
        role = f"('{theirs}' if message['role'] == '{ours}' else {role})"
    answerer = (names or {}).get("assistant", "assistant")
    return (
        "{% for message in messages %}"
        f"{{{{ '{start}' + {role} + '{middle}' + message['content'] + '{end}{between}' }}}}"
        f"{{% endfor %}}{GENERATE}{{{{ '{start}{answerer}{middle}' }}}}{{% endif %}}"
    )


def spoken(user: str, assistant: str, end: str, *, system: str | None = "", begin: str = "", gap: str = "\n") -> str:
    """Return a template that writes the speaker's name before each turn; `assistant` is without the space that begins the answer."""
    said_system = "" if system is None else f"{{{{ '{system}' + message['content'] + '{gap}' }}}}"
    return (
        f"{{{{ '{begin}' }}}}{{% for message in messages %}}{{% if message['role'] == 'system' %}}{said_system}"
        f"{{% elif message['role'] == 'user' %}}{{{{ '{user}' + message['content'] + '{gap}' }}}}"
        f"{{% else %}}{{{{ '{assistant} ' + message['content'] + '{end}{gap}' }}}}{{% endif %}}{{% endfor %}}"
        f"{GENERATE}{{{{ '{assistant}' }}}}{{% endif %}}"
    )


FAMILIES: dict[str, Family] = {
    "chatml": Family(template=marked("<|im_start|>", "\\n", "<|im_end|>"), end="<|im_end|>"),
    "llama-2": Family(
        template=(
            "{% for message in messages %}{% if message['role'] == 'user' %}"
            "{{ '<s>[INST] ' + message['content'] + ' [/INST]' }}"
            "{% else %}{{ ' ' + message['content'] + ' </s>' }}{% endif %}{% endfor %}"
        ),
        end="</s>",
        system=False,
        begin="<s>",
    ),
    "llama-3": Family(
        template="{{ '<s>' }}" + marked("<|header|>", "<|/header|>\\n\\n", "<|eot|>", between=""),
        end="<|eot|>",
        begin="<s>",
    ),
    "mistral": Family(
        template=(
            "{{ '<s>' }}{% for message in messages %}{% if message['role'] == 'user' %}"
            "{{ '[INST] ' + message['content'] + '[/INST]' }}"
            "{% else %}{{ ' ' + message['content'] + '</s>' }}{% endif %}{% endfor %}"
        ),
        end="</s>",
        system=False,
        begin="<s>",
    ),
    "gemma": Family(
        template="{{ '<s>' }}" + marked("<start_of_turn>", "\\n", "<end_of_turn>", names={"assistant": "model"}),
        end="<end_of_turn>",
        begin="<s>",
    ),
    "phi-3": Family(template=marked("<|", "|>\\n", "<|end|>"), end="<|end|>"),
    "zephyr": Family(template=marked("<|", "|>\\n", "</s>"), end="</s>"),
    "vicuna": Family(template=spoken("USER: ", "ASSISTANT:", "</s>", gap=" "), end="</s>"),
    "alpaca": Family(
        template=spoken("### Instruction:\\n", "### Response:\\n", "</s>", gap="\\n\\n").replace(
            "Response:\\n '", "Response:\\n'"
        ),
        end="</s>",
    ),
    "deepseek": Family(
        template=spoken("User: ", "Assistant:", "<eos>", gap="\\n\\n", begin="<s>"), end="<eos>", begin="<s>"
    ),
    "command-r": Family(
        template=marked("<|turn|><|", "_token|>", "<|end_turn|>", between="", names={"assistant": "chatbot"}),
        end="<|end_turn|>",
    ),
    "chatglm": Family(template=marked("<|", "|>\\n", "<eos>", between="", names={"user": "human"}), end="<eos>"),
    "yi": Family(template=marked("<|im_start|>", "\\n", "<|im_end|>", between=""), end="<|im_end|>"),
    "internlm": Family(
        template="{{ '<s>' }}" + marked("<|im_start|>", "\\n", "<|im_end|>"), end="<|im_end|>", begin="<s>"
    ),
    "falcon": Family(template=spoken("User: ", "Falcon:", "<eos>", system="System: "), end="<eos>"),
    "openchat": Family(
        template=(
            "{{ '<s>' }}{% for message in messages %}"
            "{{ 'GPT4 Correct ' + message['role'] | title + ': ' + message['content'] + '<|end_turn|>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}"
        ),
        end="<|end_turn|>",
        begin="<s>",
    ),
    "granite": Family(template=marked("<|role|>", "<|/role|>", "<eos>"), end="<eos>"),
    "smollm": Family(
        template=(
            "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
            + marked("<|im_start|>", "\\n", "<|im_end|>")
        ),
        end="<|im_end|>",
    ),
    "stablelm": Family(template=marked("<|", "|>", "<eos>"), end="<eos>"),
    "orca": Family(
        template=spoken("### User:\\n", "### Assistant:\\n", "<eos>", system="### System:\\n").replace(
            "Assistant:\\n '", "Assistant:\\n'"
        ),
        end="<eos>",
    ),
}
MARKS = sorted(
    {mark for family in FAMILIES.values() for mark in (family.end, family.begin) if mark}
    | {"<|im_start|>", "<|header|>", "<|/header|>", "<start_of_turn>", "<|turn|>", "<|role|>", "<|/role|>"}
)
