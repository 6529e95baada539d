"""A GPT: pre-norm transformer blocks over byte embeddings (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners")."""

from __future__ import annotations

from dataclasses import dataclass

import dtrain
from dtrain import Tensor, nn
from dtrain.nn import functional as F


@dataclass(frozen=True)
class Config:
    vocab: int = 256  # bytes
    context: int = 64  # short: more steps a second, which a run of two minutes needs most
    layers: int = 4
    heads: int = 4
    width: int = 128
    dropout: float = 0.0


class Attention(nn.Module):
    """Causal self-attention, (batch, time, width) to the same."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        qkv = self.qkv(x).view(batch, time, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (batch, heads, time, width / heads)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.dropout if self.training else 0.0)
        return self.out(y.transpose(1, 2).reshape(batch, time, width))


class Block(nn.Module):
    """Attention and a two-layer MLP, each around a residual connection."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(nn.Linear(config.width, 4 * config.width), nn.GELU(), nn.Linear(4 * config.width, config.width))
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x)))
        return x + self.drop(self.mlp(self.norm2(x)))


class GPT(nn.Module):
    """Logits of the next token, (batch, time) int64 to (batch, time, vocab)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocab, bias=False)
        self.apply(self._init)
        for name, p in self.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.2.weight")):  # each block adds twice to the residual stream
                nn.init.normal_(p, std=(2 * config.layers * config.width) ** -0.5)

    def _init(self, module: nn.Module) -> None:
        """Weights of variance 1 / width: a small model learns faster from these than from GPT-2's 0.02, made for a wide one."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.width**-0.5)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        time = tokens.shape[1]
        x = self.tokens(tokens) + self.positions(dtrain.arange(time, device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@dtrain.no_grad()
def generate(model: GPT, prompt: bytes, length: int, temperature: float = 0.8, generator: dtrain.Generator | None = None) -> bytes:
    """Continue ``prompt`` by ``length`` bytes, sampled at ``temperature``."""
    model.eval()
    device = next(model.parameters()).device
    tokens = dtrain.tensor([list(prompt)], device=device)
    for _ in range(length):
        logits = model(tokens[:, -model.config.context :])[:, -1]
        chances = F.softmax(logits / temperature, dim=-1)
        tokens = dtrain.cat([tokens, dtrain.multinomial(chances, 1, generator=generator)], dim=1)
    model.train()
    return bytes(tokens[0].tolist())
