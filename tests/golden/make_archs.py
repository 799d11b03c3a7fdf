#!/usr/bin/env python3
"""Make tests/golden/archs: one small model with random weights for each thing that a configuration can say, and the logits that
Hugging Face's transformers gives for it.

    make_archs.py OUT [NAME ...]      (made with torch 2.11.0 and transformers 5.9.0)

OUT/NAME/            config.json and weights as transformers saves them
OUT/NAME/logits.json "ids", and "logits" of all positions: the weights widened to fp32, fp32 arithmetic, eager attention
OUT/NAME/config.v4.json  where it is there: the same configuration in the keys that transformers 4 wrote

Other versions may give other random numbers; the tests read whatever is there.
"""
import json
import os
import sys

import torch
import transformers

TOKENS = 24
SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, vocab_size=72,
             max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)


def rope(**facts):
    return {"rope_type": "default", "rope_theta": 10000.0, **facts}


QWEN_EXPERTS = dict(num_experts=6, num_experts_per_tok=3, moe_intermediate_size=16)

# name: (family, what differs from SIZES, how it is saved)
MODELS = {
    "llama": ("llama", dict(), dict()),
    "llama_grouped": ("llama", dict(tie_word_embeddings=True, num_key_value_heads=2, head_dim=12, rms_norm_eps=1e-3), dict()),
    "llama_biases": ("llama", dict(attention_bias=True, mlp_bias=True, num_key_value_heads=2), dict()),
    "llama_rope_llama3": ("llama", dict(head_dim=16, num_attention_heads=2, num_key_value_heads=1, rope_parameters=LLAMA3), dict(v4=True)),
    "llama_rope_linear": ("llama", dict(num_key_value_heads=2, rope_parameters=rope(rope_type="linear", factor=4.0, rope_theta=500.0)), dict(v4=True)),
    "llama_bf16": ("llama", dict(num_key_value_heads=1), dict(dtype=torch.bfloat16)),
    "llama_f16": ("llama", dict(num_key_value_heads=2), dict(dtype=torch.float16)),
    "llama_sharded": ("llama", dict(num_key_value_heads=2), dict(dtype=torch.bfloat16, max_shard_size="12KB")),
    "mistral_window": ("mistral", dict(num_key_value_heads=2, sliding_window=8), dict()),
    "qwen2": ("qwen2", dict(num_key_value_heads=2, rope_parameters=rope(rope_theta=1e6)), dict()),
    "qwen2_window": ("qwen2", dict(num_key_value_heads=1, use_sliding_window=True, sliding_window=5, max_window_layers=1), dict(dtype=torch.bfloat16)),
    "qwen3": ("qwen3", dict(num_attention_heads=3, num_key_value_heads=1, head_dim=16, tie_word_embeddings=True), dict()),
    "qwen3_biases": ("qwen3", dict(num_key_value_heads=1, head_dim=8, attention_bias=True), dict(dtype=torch.bfloat16)),
    "mixtral": ("mixtral", dict(num_key_value_heads=2, intermediate_size=20, num_local_experts=5, num_experts_per_tok=2), dict()),
    "mixtral_window": ("mixtral", dict(num_key_value_heads=1, intermediate_size=24, num_local_experts=3, num_experts_per_tok=1, sliding_window=8),
                       dict(dtype=torch.bfloat16)),
    "qwen2_moe": ("qwen2_moe", dict(QWEN_EXPERTS, num_key_value_heads=2, shared_expert_intermediate_size=40, mlp_only_layers=[0]), dict()),
    "qwen2_moe_bf16": ("qwen2_moe", dict(QWEN_EXPERTS, num_key_value_heads=1, shared_expert_intermediate_size=20, norm_topk_prob=True),
                       dict(dtype=torch.bfloat16)),
    "qwen3_moe": ("qwen3_moe", dict(QWEN_EXPERTS, num_key_value_heads=2, head_dim=12, decoder_sparse_step=2), dict()),
    "qwen3_moe_bf16": ("qwen3_moe", dict(QWEN_EXPERTS, num_key_value_heads=1, head_dim=8, norm_topk_prob=True, attention_bias=True),
                       dict(dtype=torch.bfloat16)),
}


def fill(model, seed):
    """Logits of order 1 to 10, attention that is far from even, norms and biases that matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        values = torch.randn(weight.shape, generator=generator)
        if name.endswith("norm.weight"):
            values = 1 + 0.3 * values
        elif name.endswith("bias"):
            values = 0.5 * values
        elif "embed" not in name:
            gain = 2.0 if "q_proj" in name or "k_proj" in name else 3.0 if "lm_head" in name else 1.0
            values = values * gain / weight.shape[1] ** 0.5
        elif model.config.tie_word_embeddings:
            values = 0.6 * values
        weight.data.copy_(values)


def logits_of(folder, ids, **changes):
    config = transformers.AutoConfig.from_pretrained(folder)
    for key, value in changes.items():
        setattr(config, key, value)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def v4_keys(config):
    """The configuration as transformers 4 wrote it; the older of its two spellings of the rope's type for "linear"."""
    old = dict(config)
    rope = dict(old.pop("rope_parameters"))
    old["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] == "linear":
        rope["type"] = rope.pop("rope_type")
    old["rope_scaling"] = rope
    old["torch_dtype"] = old.pop("dtype")
    old["transformers_version"] = "4.44.0"
    return old


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def write_logits(folder, ids, logits):
    rows = ",\n".join("[" + ",".join("%.7g" % x for x in row) + "]" for row in logits.tolist())
    with open(os.path.join(folder, "logits.json"), "w", encoding="utf-8") as f:
        f.write('{"ids": %s,\n"logits": [\n%s]}\n' % (ids, rows))


def check_window(folder, ids, logits, window):
    """The window must change exactly the positions that see fewer keys for it."""
    wide = logits_of(folder, ids, sliding_window=TOKENS)
    same = [torch.allclose(a, b, rtol=0, atol=1e-4) for a, b in zip(logits, wide)]  # experts get their tokens in other batches
    assert all(same[:window]) and not any(same[window:]), same


def check_v4(folder, ids, logits):
    config, new = os.path.join(folder, "config.json"), os.path.join(folder, "config.new.json")
    os.rename(config, new)
    os.link(os.path.join(folder, "config.v4.json"), config)
    again = logits_of(folder, ids)
    os.replace(new, config)
    assert torch.equal(logits, again)


def make(out, name, seed):
    family, changes, saving = MODELS[name]
    folder = os.path.join(out, name)
    config = transformers.AutoConfig.for_model(family, **{**SIZES, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    fill(model, seed)
    model.to(saving.get("dtype", torch.float32))
    model.save_pretrained(folder, max_shard_size=saving.get("max_shard_size", "1GB"))
    os.remove(os.path.join(folder, "generation_config.json"))
    for name_of_file in os.listdir(folder):
        os.chmod(os.path.join(folder, name_of_file), 0o644)
    ids = torch.randint(0, SIZES["vocab_size"], (TOKENS,), generator=torch.Generator().manual_seed(100 + seed)).tolist()
    logits = logits_of(folder, ids)
    if "sliding_window" in changes:
        check_window(folder, ids, logits, changes["sliding_window"])
    if "v4" in saving:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
            write_json(os.path.join(folder, "config.v4.json"), v4_keys(json.load(f)))
        check_v4(folder, ids, logits)
    write_logits(folder, ids, logits)
    print("%-18s logits: largest %.2f, spread %.2f" % (name, logits.abs().max(), logits.std()))


def main():
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.disable_progress_bar()
    for seed, name in enumerate(MODELS):
        if len(sys.argv) == 2 or name in sys.argv[2:]:
            make(sys.argv[1], name, seed)


main()
