"""A plain torch loop with fused Adam, data in memory: what an expert writes by hand."""

import json
import sys
import time

import torch
from mnist import load
from torch import nn
from torch.nn.functional import cross_entropy

torch.manual_seed(int(sys.argv[2]))
x_train, y_train, x_test, y_test = (torch.from_numpy(part.copy()) for part in load(sys.argv[1]))
x_train, x_test, y_train, y_test = x_train.float() / 255, x_test.float() / 255, y_train.long(), y_test.long()
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
start = time.perf_counter()
for _ in range(5):
    for ids in torch.randperm(60_000).split(32):
        optimizer.zero_grad()
        cross_entropy(model(x_train[ids]), y_train[ids]).backward()
        optimizer.step()
seconds = time.perf_counter() - start
with torch.inference_mode():
    accuracy = (model(x_test).argmax(1) == y_test).double().mean().item()
print(json.dumps({"fit_seconds": seconds, "accuracy": accuracy}))
