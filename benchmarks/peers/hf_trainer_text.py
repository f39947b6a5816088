"""The Hugging Face Trainer on a text classifier, as its documentation has it; logging and saving switched off.

DATA BACKBONE EPOCHS SEED [bf16] [frozen]
"""

import json
import sys
import tempfile

import numpy as np
import torch
from reviews import load
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

data, backbone, epochs, seed, *options = sys.argv[1:]
set_seed(int(seed))
tokenizer = AutoTokenizer.from_pretrained(backbone)


class Texts(torch.utils.data.Dataset):
    def __init__(self, part: str) -> None:
        texts, self.labels = load(data, part)
        self.ids = tokenizer(texts, truncation=True, max_length=128)["input_ids"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {"input_ids": self.ids[index], "labels": self.labels[index]}


model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=2)
if "frozen" in options:
    for value in model.base_model.parameters():
        value.requires_grad = False
arguments = TrainingArguments(
    output_dir=tempfile.mkdtemp(),
    num_train_epochs=int(epochs),
    per_device_train_batch_size=32,
    per_device_eval_batch_size=64,
    learning_rate=1e-3 if "frozen" in options else 5e-5,
    warmup_steps=0.1,
    bf16="bf16" in options,
    logging_strategy="no",
    save_strategy="no",
    report_to=[],
    seed=int(seed),
    use_cpu=True,
    disable_tqdm=True,
)
trainer = Trainer(
    model=model,
    args=arguments,
    train_dataset=(train := Texts("train")),
    data_collator=DataCollatorWithPadding(tokenizer),
    processing_class=tokenizer,
)
found = trainer.train()
test = Texts("test")
predicted = trainer.predict(test).predictions.argmax(1)
accuracy = float(np.mean(predicted == np.asarray(test.labels)))
print(json.dumps({"rows": len(train), "fit_seconds": found.metrics["train_runtime"], "accuracy": accuracy}))
