"""What a network of the Transformers library is opened for, and all that follows from it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# No other class of the library is looked up by a name that may come from a file.
_AUTO_CLASS = re.compile(r"AutoModelFor\w+")


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """Describe a kind of head on an architecture of the Transformers library.

    A task can bring its own: all that is needed is written here, and a saved model keeps it.

    Raises:
        ValueError: `auto_class` is no class of the library that picks one by architecture.
    """

    name: str
    auto_class: str
    """The class that picks the architecture's class, such as AutoModelForTokenClassification."""
    outputs: tuple[str, ...] = ("logits",)
    """The fields of the library's output that the head makes. One: the network returns the tensor; several: a dictionary by these names."""
    reads_images: bool = False
    """The inputs are pixels [B, C, H, W]; otherwise token ids and a mask [B, T]."""
    names_tokens: bool = False
    """The outputs are scores of the vocabulary, so the head belongs to the architecture and is pretrained; otherwise of the classes."""
    generates: bool = False
    """Each output predicts the next token, so the network can continue a text."""
    reads_one_token: bool = False
    """The head may read the first token alone, so that the last layer need not compute the others; verified on the network itself."""
    adapter_type: str | None = None
    """What peft calls the purpose, where peft has a class for it, such as TOKEN_CLS."""

    def __post_init__(self) -> None:
        if not _AUTO_CLASS.fullmatch(self.auto_class):
            raise ValueError(f"{self.auto_class!r} is not an AutoModelFor… class of the Transformers library")

    def find_auto_class(self) -> Any:
        """Return the library's class that picks the architecture's class."""
        import transformers

        return getattr(transformers, self.auto_class)

    def model_class(self, config: PretrainedConfig) -> Any:
        """Return what opens a folder of this configuration: our own class where it is a plain Llama, else the library's."""
        if self.generates:
            from tunewright.models.language.gpt import GPT, is_plain  # lazily, as all that imports the library

            if is_plain(config):
                return GPT
        return self.find_auto_class()

    def to_json(self) -> str | dict[str, Any]:
        """Return its name, where that alone says what it is, else all of it."""
        return self.name if PURPOSES.get(self.name) == self else {**asdict(self), "outputs": list(self.outputs)}


def read_purpose(value: str | dict[str, Any]) -> Purpose:
    """Return the purpose that `to_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: it is damaged.
    """
    if isinstance(value, str):
        return PURPOSES[value]
    fields: dict[str, Any] = {**value, "outputs": tuple(value["outputs"])}
    return Purpose(**fields)


TEXT_CLASSIFICATION = Purpose(
    name="text-classification",
    auto_class="AutoModelForSequenceClassification",
    reads_one_token=True,
    adapter_type="SEQ_CLS",
)
IMAGE_CLASSIFICATION = Purpose(
    name="image-classification", auto_class="AutoModelForImageClassification", reads_images=True
)
MASKED_LM = Purpose(name="masked-lm", auto_class="AutoModelForMaskedLM", names_tokens=True)
CAUSAL_LM = Purpose(name="causal-lm", auto_class="AutoModelForCausalLM", names_tokens=True, generates=True)
PURPOSES = {purpose.name: purpose for purpose in (TEXT_CLASSIFICATION, IMAGE_CLASSIFICATION, MASKED_LM, CAUSAL_LM)}
