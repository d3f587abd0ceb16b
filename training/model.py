"""
The Doge decoder (dense variant) as Hugging Face transformers defines it, for training and evaluation.

Parameter names equal those of DogeForCausalLM, so a state dict is a checkpoint. Matrix products run in `dtype`
(bfloat16 while training), everything that decides what is remembered (norms, importance, softmax) in float32.

One thing is fixed here that Doge leaves open: heads whose A is held at zero. Their importance is exp(0) = 1 for every
token, and as the newer token wins a tie, the best `keep_window_size` tokens are the last ones: a sliding window.
"""
import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

MASKED = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class Config:
    vocab_size: int
    hidden_size: int = 128
    intermediate_size: int = 384
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e12
    keep_window_size: int = 256

    def local_heads(self, layer):
        """KV heads that are sliding windows: all in the first layer, where v knows a single token; later the first."""
        return self.num_key_value_heads if layer == 0 else 1

    def to_dict(self):
        return asdict(self)


@dataclass
class Cache:
    """What one layer remembers: k (rotated) and v [B, K, S, D], importance [B, K, S], oldest token first."""
    k: torch.Tensor
    v: torch.Tensor
    importance: torch.Tensor


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return normalise(x, self.weight, self.eps)


def normalise(x, weight, eps):
    x = x.float()
    return weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps))


def softmax_of_visible(scores, importance, visible):
    """scores [B, K, G, T, S], importance [B, K, S] and visible [B, K, T, S] -> weights in the dtype of the scores."""
    bias = importance.unsqueeze(2).masked_fill(~visible, MASKED)
    return torch.softmax(scores.float() + bias.unsqueeze(2), -1).to(scores.dtype)


class Linear(nn.Linear):
    """A linear layer whose product runs in the dtype of its input."""

    def forward(self, x):
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


def rotary_tables(config, positions):
    """cos and sin [..., D/2] of integer positions; angles in float64, since positions reach a million."""
    half = config.head_dim // 2
    inverse = config.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = positions.double().unsqueeze(-1) * inverse
    return angles.cos().float(), angles.sin().float()


def rotate(x, cos, sin):
    """Half-split rotation of x [B, T, heads, D] by tables [B, T, D/2]."""
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def ascending(importance):
    """Indices from the first to be forgotten to the last; of equals the older goes first."""
    return importance.sort(stable=True, dim=-1).indices


def kept(importance, rows, window):
    """
    Which of S tokens each of the last `rows` tokens sees: [..., rows, S] from importance [..., S].

    Key j is visible to row i if j <= i and fewer than `window` of the keys up to i rank above it. The count of keys
    that rank above j is a running sum over i.
    """
    size = importance.shape[-1]
    order = ascending(importance)
    rank = torch.empty_like(order).scatter_(-1, order, torch.arange(size).expand_as(order)).to(torch.int16)
    above = (rank.unsqueeze(-2) > rank.unsqueeze(-1)).to(torch.int16).cumsum(-1, dtype=torch.int16)
    return (above[..., size - rows:] < window).transpose(-1, -2) & causal(rows, size)


def causal(rows, size):
    return torch.ones(rows, size, dtype=torch.bool).tril(size - rows)


class Attention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.config = config
        self.num_local = config.local_heads(layer)
        hidden, dim = config.hidden_size, config.head_dim
        q_size, kv_size = config.num_attention_heads * dim, config.num_key_value_heads * dim
        self.q_proj = Linear(hidden, q_size)
        self.k_proj = Linear(hidden, kv_size)
        self.v_proj = Linear(hidden, kv_size)
        self.o_proj = Linear(q_size, hidden)
        self.dt_proj = Linear(kv_size, config.num_key_value_heads)
        self.A = nn.Parameter(torch.zeros(config.num_key_value_heads))
        self.q_norm = RMSNorm(dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(dim, config.rms_norm_eps)

    def forward(self, x, tables, window, cache=None):
        """x [B, T, hidden] -> output [B, T, hidden], dt [B, T, K], cache of all tokens seen (not yet shortened)."""
        batch, rows, _ = x.shape
        heads, kv_heads, dim = self.config.num_attention_heads, self.config.num_key_value_heads, self.config.head_dim
        split = lambda y, count: y.view(batch, rows, count, dim)
        q = rotate(self.q_norm(split(self.q_proj(x), heads)), *tables) / math.sqrt(dim)
        k = rotate(self.k_norm(split(self.k_proj(x), kv_heads)), *tables).to(x.dtype).transpose(1, 2)
        v = self.v_proj(x)
        dt = self.dt_proj(v.float())
        importance = torch.exp(self.A * F.softplus(dt)).transpose(1, 2)
        v = split(v, kv_heads).transpose(1, 2)
        if cache is not None:
            k, v = torch.cat((cache.k, k), 2), torch.cat((cache.v, v), 2)
            importance = torch.cat((cache.importance, importance), 2)

        group = heads // kv_heads
        q = q.to(x.dtype).view(batch, rows, kv_heads, group, dim).permute(0, 2, 3, 1, 4).reshape(batch, kv_heads, group * rows, dim)
        scores = (q @ k.transpose(2, 3)).view(batch, kv_heads, group, rows, -1)
        weights = softmax_of_visible(scores, importance, self.visible(importance.detach(), rows, window))
        mixed = (weights.view(batch, kv_heads, group * rows, -1) @ v).view(batch, kv_heads, group, rows, dim)
        mixed = mixed.permute(0, 3, 1, 2, 4).reshape(batch, rows, heads * dim)
        return self.o_proj(mixed), dt, Cache(k, v, importance)

    def visible(self, importance, rows, window):
        """[B, K, rows, S]: the sliding heads need no sorting."""
        batch, kv_heads, size = importance.shape
        mask = causal(rows, size)
        if window >= size:
            return mask.expand(batch, kv_heads, rows, size)
        local = mask & ~torch.ones_like(mask).tril(size - rows - window)
        parts = [local.expand(batch, self.num_local, rows, size)]
        if self.num_local < kv_heads:
            parts.append(kept(importance[:, self.num_local:], rows, window))
        return torch.cat(parts, 1)


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(hidden, eps)
        self.input_residual = nn.Parameter(torch.ones(hidden))
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(hidden, eps)
        self.post_attention_residual = nn.Parameter(torch.ones(hidden))
        self.mlp = MLP(config)

    def forward(self, x, dtype, tables, window, cache):
        attended, dt, cache = self.self_attn(self.input_layernorm(x).to(dtype), tables, window, cache)
        x = self.input_residual * x + attended
        x = self.post_attention_residual * x + self.mlp(self.post_attention_layernorm(x).to(dtype))
        return x, dt, cache


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Doge(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = Decoder(config)

    def forward(self, ids, positions, window, dtype=torch.float32, caches=None):
        """
        ids, positions [B, T] -> hidden states [B, T, hidden], dt of each layer [B, T, K], caches of each layer.
        `caches` are those of the tokens before; the ones returned hold all tokens: `shorten` them before the next call.
        """
        tables = rotary_tables(self.config, positions)
        x = self.model.embed_tokens(ids)
        all_dt, all_caches = [], []
        for index, layer in enumerate(self.model.layers):
            x, dt, cache = layer(x, dtype, tables, window, None if caches is None else caches[index])
            all_dt.append(dt)
            all_caches.append(cache)
        return self.model.norm(x), all_dt, all_caches

    def read(self, ids, positions, window, chunk, dtype=torch.float32):
        """
        Reads [B, T] in chunks with a bounded cache: hidden states, dt of each layer, the cache at the end. The result is
        that of one pass, since what a cache forgets is what later queries would not have seen.
        """
        caches, hidden, all_dt = None, [], []
        for ids_part, positions_part in zip(ids.split(chunk, 1), positions.split(chunk, 1)):
            states, dt, caches = self(ids_part, positions_part, window, dtype, caches)
            caches = [shorten(cache, window) for cache in caches]
            hidden.append(states)
            all_dt.append(dt)
        return torch.cat(hidden, 1), [torch.cat(parts, 1) for parts in zip(*all_dt)], caches

    def logits(self, hidden, dtype=torch.float32):
        return F.linear(hidden.to(dtype), self.model.embed_tokens.weight.to(dtype)).float()


def shorten(cache, window):
    """The cache after forgetting all but the best `window` tokens of each head."""
    if cache.importance.shape[-1] <= window:
        return cache
    keep = ascending(cache.importance)[..., -window:].sort(-1).values
    rows = keep.unsqueeze(-1).expand(-1, -1, -1, cache.k.shape[-1])
    return Cache(cache.k.gather(2, rows), cache.v.gather(2, rows), cache.importance.gather(2, keep))


def fuse():
    """
    Compiles the element-wise parts (PyTorch 2 and a C++ compiler): the same training for 40% less processor time. Not
    whole layers: PyTorch 2.13 made NaN gradients of k from those on a CPU with AMX.
    """
    for name in ("normalise", "rotate", "softmax_of_visible", "kept"):
        globals()[name] = torch.compile(globals()[name])
    MLP.forward = torch.compile(MLP.forward)
