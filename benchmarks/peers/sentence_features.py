"""The mean of the last layer's vectors as features, and logistic regression on them. DATA BACKBONE"""

import json
import sys
import time

import numpy as np
import torch
from reviews import load
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

data, backbone = sys.argv[1:3]
tokenizer, model = AutoTokenizer.from_pretrained(backbone), AutoModel.from_pretrained(backbone).eval()


def features(part: str) -> tuple[np.ndarray, np.ndarray]:
    texts, labels = load(data, part)
    order = np.argsort([len(text) for text in texts])
    found = np.zeros((len(texts), model.config.hidden_size), np.float32)
    with torch.inference_mode():
        for chosen in np.array_split(order, max(1, len(order) // 64)):
            batch = tokenizer(
                [texts[i] for i in chosen], truncation=True, max_length=128, padding=True, return_tensors="pt"
            )
            mask = batch["attention_mask"].unsqueeze(-1)
            hidden = model(**batch).last_hidden_state
            found[chosen] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return found, np.asarray(labels)


started = time.perf_counter()
inputs, target = features("train")
fitted = LogisticRegression(max_iter=1000).fit(inputs, target)
seconds = time.perf_counter() - started
test, truth = features("test")
accuracy = float((fitted.predict(test) == truth).mean())
print(json.dumps({"rows": len(target), "fit_seconds": seconds, "accuracy": accuracy}))
