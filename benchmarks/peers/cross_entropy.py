"""One step of the output matrix's loss, whole or in chunks: its time and the memory at its peak. KIND TOKENS WIDTH PIECES"""

import json
import resource
import sys
import time

import torch
from torch.nn import functional as F

kind, tokens, width, pieces = sys.argv[1], *map(int, sys.argv[2:])
if kind == "chunked":
    from tunewright.training.objectives.chunked_cross_entropy import token_loss_sum
torch.manual_seed(0)
hidden = torch.randn(tokens, width, requires_grad=True)
weight = (torch.randn(pieces, width) * 0.02).requires_grad_()
targets = torch.randint(0, pieces, (tokens,))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
if kind == "chunked":
    loss = token_loss_sum(hidden, weight, targets) / tokens
else:
    loss = F.cross_entropy(hidden @ weight.t(), targets)
loss.backward()
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert weight.grad is not None
print(
    json.dumps({"seconds": seconds, "mebibytes": peak / 1024, "loss": loss.item(), "norm": weight.grad.norm().item()})
)
