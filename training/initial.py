"""
Starting values that give attention something to hold on to.

From plain random weights, recall stays at guessing for a long time: a model first has to find out that the tokens just
before a word say what the word is about. So the sliding heads of the first layers start as offset heads (each looks at
one distance, 1, 2, 3, 4 tokens back, through the fast RoPE pairs), and the memory heads start with their content in
the slow RoPE pairs, whose angle says nothing about distance.
"""
import math

import torch

OFFSETS = {0: (1, 2, 3, 4), 1: (4, 7)}  # layer -> distance of each sliding query head
FAST_PAIRS = 4
SLOWEST_TURN = 4e-7  # radians per token; pairs below it turn less than 0.4 in a million tokens
SHARP, SOFT = 2.5, 1.5  # q_norm and k_norm weights of the fast pairs, and of all others
INITIAL_A = 0.2


@torch.no_grad()
def initialise(model):
    config = model.config
    model.model.embed_tokens.weight.normal_(0, 0.1)
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
        start_offset_heads(config, attention, OFFSETS.get(index, ()))
        start_memory_heads(config, attention)
    return model


def pairs(vector):
    """Half-split view [..., 2, D/2] of the last axis."""
    return vector.view(*vector.shape[:-1], 2, -1)


def turns(config):
    half = config.head_dim // 2
    return config.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)


def start_offset_heads(config, attention, offsets):
    """Biases make a head's score a function of distance with its peak at the offset; content starts near nothing."""
    dim = config.head_dim
    group = config.num_attention_heads // config.num_key_value_heads
    fast = turns(config)[:FAST_PAIRS]
    for head, offset in enumerate(offsets):
        rows = slice(head * dim, (head + 1) * dim)
        attention.q_proj.weight[rows] *= 0.1
        bias = pairs(attention.q_proj.bias[rows])
        bias[0, :FAST_PAIRS], bias[1, :FAST_PAIRS] = (offset * fast).cos().float() * 3, -(offset * fast).sin().float() * 3
        kv = head // group
        if head % group == 0:
            rows = slice(kv * dim, (kv + 1) * dim)
            attention.k_proj.weight[rows] *= 0.1
            pairs(attention.k_proj.bias[rows])[0, :FAST_PAIRS] = 3


def start_memory_heads(config, attention):
    dim = config.head_dim
    group = config.num_attention_heads // config.num_key_value_heads
    quick = (turns(config) > SLOWEST_TURN).repeat(2)
    for weight, first in ((attention.q_proj.weight, attention.num_local * group), (attention.k_proj.weight, attention.num_local)):
        weight.view(-1, dim, config.hidden_size)[first:, quick] *= 0.1
