"""
Starting values that give attention something to hold on to.

From plain random weights, recall stays at guessing for a long time: a model first has to find out that the words just
before a value say what it is a value of. So it starts as a crude associative memory, and training refines that:

* The sliding heads of the first layers are offset heads: through the fast RoPE pairs each looks at one distance, and
  writes what it finds there into the residual stream, turned by a random rotation of its own.
* The memory heads compare bags of words: a query made of the last words with keys made of the words before each key,
  in the slow RoPE pairs, whose angle says nothing about distance. What they find they copy to the output.
"""
import math

import torch

OFFSETS = {0: (1, 2, 3, 4), 1: (4, 7)}  # layer -> distance of each sliding query head
FAST_PAIRS = 4
SLOWEST_TURN = 4e-7  # radians per token; pairs below it turn less than 0.4 in a million tokens
SHARP, SOFT = 2.5, 1.5  # q_norm and k_norm weights of the fast pairs, and of all others
EMBEDDING_SCALE = 0.1
COPY_SCALE = 0.15
INITIAL_A = 0.35


@torch.no_grad()
def initialise(model):
    config = model.config
    model.model.embed_tokens.weight.normal_(0, EMBEDDING_SCALE)
    rotations = [random_rotation(config.hidden_size) for _ in OFFSETS[0]]
    for index, layer in enumerate(model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.gate_proj, mlp.up_proj,
                       mlp.down_proj, attention.dt_proj):
            linear.weight.normal_(0, 1 / math.sqrt(linear.in_features))
            if linear.bias is not None:
                linear.bias.zero_()
        for output in (attention.o_proj, mlp.down_proj):
            output.weight.mul_(0.3 / math.sqrt(config.num_hidden_layers))
        attention.dt_proj.weight.mul_(0.1)
        attention.A[attention.num_local:] = INITIAL_A
        for norm in (attention.q_norm, attention.k_norm):
            norm.weight.fill_(SOFT)
            pairs(norm.weight)[:, :FAST_PAIRS] = SHARP
        for head, offset in enumerate(OFFSETS.get(index, ())):
            rotation = rotations[head] if index == 0 else random_rotation(config.hidden_size)
            start_offset_head(config, attention, head, offset, rotation)
        start_memory_heads(config, attention, sum(rotation.T for rotation in rotations))
    return model


def random_rotation(size):
    return torch.linalg.qr(torch.randn(size, size))[0]


def pairs(vector):
    """Half-split view [..., 2, D/2] of the last axis."""
    return vector.view(*vector.shape[:-1], 2, -1)


def turns(config):
    half = config.head_dim // 2
    return config.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)


def rows_of(config, head):
    return slice(head * config.head_dim, (head + 1) * config.head_dim)


def start_copying(config, attention, head, rotation):
    """Output of a query head: what its KV head saw, rotated."""
    group = config.num_attention_heads // config.num_key_value_heads
    v = attention.v_proj.weight[rows_of(config, head // group)]
    attention.o_proj.weight[:, rows_of(config, head)] = COPY_SCALE * rotation @ v.T


def start_offset_head(config, attention, head, offset, rotation):
    """Biases make a head's score a function of distance with its peak at the offset; content starts near nothing."""
    group = config.num_attention_heads // config.num_key_value_heads
    fast = turns(config)[:FAST_PAIRS]
    rows = rows_of(config, head)
    attention.q_proj.weight[rows] *= 0.1
    bias = pairs(attention.q_proj.bias[rows])
    bias[0, :FAST_PAIRS], bias[1, :FAST_PAIRS] = (offset * fast).cos().float() * 3, -(offset * fast).sin().float() * 3
    if head % group == 0:
        rows = rows_of(config, head // group)
        attention.k_proj.weight[rows] *= 0.1
        pairs(attention.k_proj.bias[rows])[0, :FAST_PAIRS] = 3
    start_copying(config, attention, head, rotation)


def start_memory_heads(config, attention, earlier_words):
    """`earlier_words` [hidden, hidden] finds the sum of the words before a token in its residual stream."""
    group = config.num_attention_heads // config.num_key_value_heads
    slow = (turns(config) < SLOWEST_TURN).repeat(2).float().unsqueeze(1)
    identity = torch.eye(config.hidden_size)
    for kv in range(attention.num_local, config.num_key_value_heads):
        words = torch.randn(config.head_dim, config.hidden_size) / math.sqrt(config.hidden_size) * slow
        attention.k_proj.weight[rows_of(config, kv)] *= 0.1
        attention.k_proj.weight[rows_of(config, kv)] += words @ earlier_words
        for number, query in enumerate((identity + 0.5 * earlier_words, identity)[:group]):
            head = kv * group + number
            attention.q_proj.weight[rows_of(config, head)] *= 0.1
            attention.q_proj.weight[rows_of(config, head)] += words @ query
            start_copying(config, attention, head, identity)
