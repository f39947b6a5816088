"""The Hugging Face Trainer with its default loop on the same network; logging and saving switched off."""

import json
import sys
import tempfile
import time

import torch
from mnist import load
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments

x_train, y_train, x_test, y_test = (torch.from_numpy(part.copy()) for part in load(sys.argv[1]))


class Digits(torch.utils.data.Dataset):
    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images.float() / 255, labels.long()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixels": self.images[index], "labels": self.labels[index]}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, pixels: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.layers(pixels)
        return {"loss": cross_entropy(logits, labels), "logits": logits} if labels is not None else {"logits": logits}


arguments = TrainingArguments(
    output_dir=tempfile.mkdtemp(),
    num_train_epochs=5,
    per_device_train_batch_size=32,
    learning_rate=1e-3,
    lr_scheduler_type="constant",
    logging_strategy="no",
    save_strategy="no",
    report_to=[],
    seed=int(sys.argv[2]),
    use_cpu=True,
    disable_tqdm=True,
)
torch.manual_seed(int(sys.argv[2]))
trainer = Trainer(model=Network(), args=arguments, train_dataset=Digits(x_train, y_train))
start = time.perf_counter()
trainer.train()
seconds = time.perf_counter() - start
with torch.inference_mode():
    logits = trainer.model.eval()(x_test.float() / 255)["logits"]
print(json.dumps({"fit_seconds": seconds, "accuracy": (logits.argmax(1) == y_test).double().mean().item()}))
