"""A plain training loop for a small GPT, as the well-known teaching code has it. DATA STEPS SEED

GPT-2's layer norms, learned positions and GELU; windows drawn at random from one long text; AdamW 1e-3 to 1e-4 by cosine
with 100 steps of warm-up, β₂ 0.99, weight decay 0.1 on matrices, gradients clipped at 1; float32, no dropout.
"""

import json
import math
import sys
import time
from pathlib import Path

import torch
from characters import Characters, validation_loss
from torch import nn
from torch.nn import functional as F

CONTEXT, BATCH, WIDTH, HEADS, LAYERS = 64, 12, 128, 4, 4


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.attention, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        parts = self.attention(self.first(x)).split(WIDTH, dim=2)
        query, key, value = (part.view(batch, length, HEADS, -1).transpose(1, 2) for part in parts)
        found = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(found.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.down(F.gelu(self.up(self.second(x))))


class Gpt(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, value in self.named_parameters():
            if value.dim() == 2:
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(value, std=0.02 / math.sqrt(2 * LAYERS) if deep else 0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return self.norm(x) @ self.tokens.weight.t()


built = time.perf_counter()
data, steps, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(seed)
characters = Characters.of(data)
text = characters.ids((data / "train.txt").read_text(encoding="utf-8"))
model = Gpt(len(characters.names))
matrices = [value for value in model.parameters() if value.dim() == 2]
others = [value for value in model.parameters() if value.dim() != 2]
groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
started = time.perf_counter()
for step in range(steps):
    share = max(0.0, (step - 100) / max(1, steps - 100))
    rate = 1e-3 * (step + 1) / 101 if step < 100 else 1e-4 + 0.5 * (1 + math.cos(math.pi * share)) * 9e-4
    for group in optimizer.param_groups:
        group["lr"] = rate
    starts = torch.randint(len(text) - CONTEXT, (BATCH,))
    inputs = torch.stack([text[start : start + CONTEXT] for start in starts])
    targets = torch.stack([text[start + 1 : start + 1 + CONTEXT] for start in starts])
    loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
ended = time.perf_counter()
loss = validation_loss(model.eval(), characters.ids((data / "valid.txt").read_text(encoding="utf-8")), CONTEXT)
print(
    json.dumps({"prepared": [built, started], "fit": [started, ended], "tokens": steps * BATCH * CONTEXT, "loss": loss})
)
