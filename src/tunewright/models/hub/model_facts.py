"""What is published of pretrained models, by the name that a recipe gives them: the shortlist of `tunewright choose`.

Each score stands with its source and was looked up on the date below. Scores of different measures are never compared.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOKED_UP = "2026-11-27"

MNLI = "accuracy on MNLI-m (dev)"
XNLI_ZH = "accuracy on XNLI, Chinese (test)"
IMAGENET = "top-1 accuracy on ImageNet-1k"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One model's facts."""

    task: str
    parameters: float
    """Without the head, as published."""
    licence: str
    languages: tuple[str, ...] = ()
    """Those that it was pretrained on; "many" for a hundred; empty: it reads none."""
    measure: str | None = None
    score: float | None = None
    source: str = ""


_MINILM = "the models' own table, model card of MiniLM-L12-H384-uncased; W. Wang et al. 2020 (arXiv 2002.10957)"
_DEBERTA = "model card; P. He et al. 2021 (arXiv 2111.09543)"
_HFL = "Y. Cui et al. 2019 (arXiv 1906.08101), table of XNLI, the best of ten runs"


def _writer(parameters: float, *languages: str) -> Published:
    """Return a language model; by their cards all of these are free to use. Without a score: their cards have none by the same
    harness."""
    return Published(task="language-modeling", parameters=parameters, licence="Apache-2.0", languages=languages)


PUBLISHED: dict[str, Published] = {
    "minilm": Published(task="text-classification", parameters=22.7e6, licence="Apache-2.0", languages=("en",)),
    "microsoft/MiniLM-L12-H384-uncased": Published(
        task="text-classification",
        parameters=33e6,
        licence="MIT",
        languages=("en",),
        measure=MNLI,
        score=85.7,
        source=_MINILM,
    ),
    "google-bert/bert-base-uncased": Published(
        task="text-classification",
        parameters=109e6,
        licence="Apache-2.0",
        languages=("en",),
        measure=MNLI,
        score=84.5,
        source=_MINILM,
    ),
    "FacebookAI/roberta-base": Published(
        task="text-classification",
        parameters=125e6,
        licence="MIT",
        languages=("en",),
        measure=MNLI,
        score=87.6,
        source=_DEBERTA,
    ),
    "microsoft/deberta-v3-base": Published(
        task="text-classification",
        parameters=184e6,
        licence="MIT",
        languages=("en",),
        measure=MNLI,
        score=90.6,
        source=_DEBERTA,
    ),
    "google-bert/bert-base-chinese": Published(
        task="text-classification",
        parameters=102e6,
        licence="Apache-2.0",
        languages=("zh",),
        measure=XNLI_ZH,
        score=77.8,
        source=_HFL,
    ),
    "hfl/chinese-roberta-wwm-ext": Published(
        task="text-classification",
        parameters=102e6,
        licence="Apache-2.0",
        languages=("zh",),
        measure=XNLI_ZH,
        score=78.8,
        source=_HFL,
    ),
    "FacebookAI/xlm-roberta-base": Published(
        task="text-classification",
        parameters=278e6,
        licence="MIT",
        languages=("many",),
    ),
    "efficientnet-lite0": Published(
        task="image-classification",
        parameters=3.4e6,
        licence="Apache-2.0",
        measure=IMAGENET,
        score=75.1,
        source="the authors' table of the lite variants (tensorflow/tpu, efficientnet/lite)",
    ),
    "facebook/deit-tiny-patch16-224": Published(
        task="image-classification",
        parameters=5.7e6,
        licence="Apache-2.0",
        measure=IMAGENET,
        score=72.2,
        source="H. Touvron et al. 2020 (arXiv 2012.12877), table 5",
    ),
    "facebook/deit-small-patch16-224": Published(
        task="image-classification",
        parameters=22e6,
        licence="Apache-2.0",
        measure=IMAGENET,
        score=79.8,
        source="H. Touvron et al. 2020 (arXiv 2012.12877), table 5",
    ),
    "microsoft/swin-tiny-patch4-window7-224": Published(
        task="image-classification",
        parameters=28e6,
        licence="Apache-2.0",
        measure=IMAGENET,
        score=81.3,
        source="Z. Liu et al. 2021 (arXiv 2103.14030), table 1",
    ),
    "facebook/convnext-tiny-224": Published(
        task="image-classification",
        parameters=28e6,
        licence="Apache-2.0",
        measure=IMAGENET,
        score=82.1,
        source="Z. Liu et al. 2022 (arXiv 2201.03545), table 1",
    ),
    "HuggingFaceTB/SmolLM2-135M": _writer(135e6, "en"),
    "HuggingFaceTB/SmolLM2-360M": _writer(360e6, "en"),
    "HuggingFaceTB/SmolLM2-1.7B": _writer(1.7e9, "en"),
    "Qwen/Qwen2.5-0.5B": _writer(0.49e9, "many"),
    "Qwen/Qwen2.5-1.5B": _writer(1.54e9, "many"),
}
