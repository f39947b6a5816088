"""Scaling laws: which loss N parameters reach on D tokens, and how a compute budget is best divided between the two.

L(N, D) = E + A / N^α + B / D^β nats a token; training costs C = 6 N D FLOPs (Kaplan et al. 2020, section 2.1). For a given C the loss is
least at N* = G (C/6)^(β/(α+β)) and D* = (C/6) / N*, with G = (αA / βB)^(1/(α+β)) (Hoffmann et al. 2022, equation 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# FLOPs for each parameter and token: two forwards, four backwards.
EACH = 6


@dataclass(frozen=True, kw_only=True)
class Law:
    """A fitted law."""

    name: str
    source: str
    irreducible: float
    """E, nats a token."""
    a: float
    b: float
    alpha: float
    beta: float
    fresh_half: float | None = None
    """R_D*: how fast repeated tokens lose their worth; None: the law is for tokens that are read once."""
    extra_half: float | None = None
    """R_N*: the same of parameters beyond what the tokens are worth."""

    def loss(self, parameters: float, tokens: float, unique: float | None = None) -> float:
        """Nats a token.

        Args:
            tokens: all that are read, repetitions counted.
            unique: the different ones among them; None: all.

        A law of repeated data counts D' = U + U R_D* (1 − exp(−R / R_D*)) tokens for U different ones and R repetitions, and
        parameters beyond what U tokens are worth likewise (Muennighoff et al. 2023, equations 5 and 6).
        """
        if self.fresh_half is not None and self.extra_half is not None:
            known = min(tokens, unique or tokens)
            useful = min(parameters, self.parameters_for(known))
            parameters = _worth(useful, parameters, self.extra_half)
            tokens = _worth(known, tokens, self.fresh_half)
        return self.irreducible + self.a / parameters**self.alpha + self.b / tokens**self.beta

    @property
    def balance(self) -> float:
        """G."""
        return (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))

    def optimum(self, compute: float) -> tuple[float, float]:
        """The parameters and tokens with the least loss for so many FLOPs, every token read once."""
        parameters = self.balance * (compute / EACH) ** (self.beta / (self.alpha + self.beta))
        return parameters, compute / EACH / parameters

    def parameters_for(self, tokens: float) -> float:
        """The parameters for which so many tokens are the optimum."""
        # D* = (C/6)^(α/(α+β)) / G, solved for C/6, of which N* is the other share.
        share = (tokens * self.balance) ** ((self.alpha + self.beta) / self.alpha)
        return share / tokens


def _worth(unique: float, whole: float, half: float) -> float:
    repeated = whole / unique - 1
    return unique + unique * half * (1 - math.exp(-repeated / half))


BESIROGLU = Law(
    name="besiroglu",
    source="Besiroglu et al. 2024 (arXiv 2404.10102), a new fit of Hoffmann et al.'s own runs",
    irreducible=1.8172,
    a=482.01,
    b=2085.43,
    alpha=0.3478,
    beta=0.3658,
)
HOFFMANN = Law(
    name="hoffmann",
    source="Hoffmann et al. 2022 (arXiv 2203.15556), approach 3",
    irreducible=1.6934,
    a=406.4,
    b=410.7,
    alpha=0.33917084,
    beta=0.2849083,
)
REPEATED = Law(
    name="muennighoff",
    source="Muennighoff et al. 2023 (arXiv 2305.16264), for repeated tokens",
    irreducible=math.exp(0.6254804),
    a=math.exp(6.255414),
    b=math.exp(7.3049974),
    alpha=0.3526596,
    beta=0.3526596,
    fresh_half=15.387756,
    extra_half=5.309743,
)
LAWS = {law.name: law for law in (BESIROGLU, HOFFMANN, REPEATED)}
