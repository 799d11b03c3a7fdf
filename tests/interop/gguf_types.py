"""GGUF files of all types, written and read by the Python package gguf; qdist must read the same bits.

    gguf_types.py QDIST WORK TAP     appends a line a check to TAP; HDF5_PLUGIN_PATH names our filter

A model's linears are ignored but one, so that the store holds the others as they were read; of the one it has the digest.
"""
import json
import os
import subprocess
import sys

import gguf
import numpy as np

from store import Store, digest, expect

HIDDEN, FFN, HEADS, KV_HEADS, BLOCKS, VOCABULARY = 256, 512, 4, 2, 2, 64
TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
HALVES = {"Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}  # where a block has fp16 scales
LINEARS = {"attn_q": ("self_attn.q_proj", HIDDEN, HIDDEN), "attn_k": ("self_attn.k_proj", HIDDEN // HEADS * KV_HEADS, HIDDEN),
           "attn_v": ("self_attn.v_proj", HIDDEN // HEADS * KV_HEADS, HIDDEN), "attn_output": ("self_attn.o_proj", HIDDEN, HIDDEN),
           "ffn_gate": ("mlp.gate_proj", FFN, HIDDEN), "ffn_up": ("mlp.up_proj", FFN, HIDDEN), "ffn_down": ("mlp.down_proj", HIDDEN, FFN)}


def packed(random, name, shape):
    """Raw bytes of a tensor: by the package's encoder, or any blocks where it has none."""
    kind = gguf.GGMLQuantizationType[name]
    if name not in HALVES:
        return gguf.quants.quantize(random.standard_normal(shape, dtype=np.float32), kind)
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (shape[0], shape[1] // elements, size), dtype=np.uint8)
    for at in HALVES[name]:
        scales = (random.standard_normal(blocks.shape[:2]) * 0.01).astype(np.float16)
        blocks[:, :, at:at + 2] = scales.view(np.uint8).reshape(*blocks.shape[:2], 2)
    return blocks.reshape(shape[0], -1)


def write(path, arch):
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, arch)
    for add, value in [(writer.add_block_count, BLOCKS), (writer.add_embedding_length, HIDDEN), (writer.add_feed_forward_length, FFN),
                       (writer.add_head_count, HEADS), (writer.add_head_count_kv, KV_HEADS), (writer.add_context_length, 64),
                       (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_freq_base, 10000.0)]:
        add(value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if arch != "llama" else "smollm")
    writer.add_token_list(["a", "b", "ab"])
    writer.add_token_types([1, 1, 1])
    writer.add_token_merges(["a b"])
    order = TYPES[3:] + TYPES[1:3]
    writer.add_tensor("token_embd.weight", packed(random, "Q6_K", (VOCABULARY, HIDDEN)), raw_dtype=gguf.GGMLQuantizationType.Q6_K)
    for block in range(BLOCKS):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor("blk.%d.%s.weight" % (block, norm), random.standard_normal(HIDDEN, dtype=np.float32))
        if arch == "qwen2":
            for bias, rows in (("attn_q", HIDDEN), ("attn_k", HIDDEN // 2), ("attn_v", HIDDEN // 2)):
                writer.add_tensor("blk.%d.%s.bias" % (block, bias), random.standard_normal(rows, dtype=np.float32))
        for i, (name, (_, rows, columns)) in enumerate(LINEARS.items()):
            kind = order[(len(LINEARS) * block + i) % len(order)]
            writer.add_tensor("blk.%d.%s.weight" % (block, name), packed(random, kind, (rows, columns)),
                              raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.add_tensor("output_norm.weight", random.standard_normal(HIDDEN, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def hugging_face(name):
    if not name.startswith("blk."):
        return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]
    _, block, short, ending = name.split(".")
    norms = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    return "model.layers.%s.%s.%s" % (block, norms.get(short) or LINEARS[short][0], ending)


def in_order(rows, heads):
    """llama.cpp keeps the two halves of a head's rows interleaved."""
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def read(path, arch):
    """name: bytes of the tensor as qdist must read it."""
    tensors = {}
    for t in gguf.GGUFReader(path).tensors:
        if t.tensor_type.name in ("F16", "BF16"):
            values = np.ascontiguousarray(t.data).view(np.uint16)
        else:
            values = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        for part, heads in (("attn_q.weight", HEADS), ("attn_k.weight", KV_HEADS)):
            if arch == "llama" and t.name.endswith(part):
                values = in_order(values, heads)
        tensors[hugging_face(t.name)] = (t.tensor_type.name, np.ascontiguousarray(values).tobytes())
    return tensors


def check(qdist, path, arch):
    out, original, seen = path + ".store", read(path, arch), set()
    command = [qdist, "quantize", "--model", path, "--method", "rtn", "-g", "64", "--output", out, "--ignore", r"layers\.0\.",
               "--ignore", r"layers\.1\.(?!mlp\.down_proj)"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    expect(done.returncode == 0, done.stdout)
    store = Store(out)
    for entry, record in store.records():
        if record["scheme"] == "statistics":
            continue
        kind, data = original.pop(record["name"])
        seen.add(kind)
        expect(record["dtype"] == (kind if kind in ("F16", "BF16") else "F32"), record["name"], "is read as", record["dtype"])
        expect(record["source"] == digest(data), record["name"], "(", kind, ") has another digest")
        if record["scheme"] == "none":
            expect(store.read(entry, record)["values"].tobytes() == data, record["name"], "(", kind, ") has other bits")
    expect(not original, "not in the store:", sorted(original))
    expect(seen == set(TYPES), "types that were not tried:", sorted(set(TYPES) - seen))
    vocabulary = json.loads(store.bytes_of("tokenizer.json"))["model"]["vocab"]
    expect(vocabulary == {"a": 0, "b": 1, "ab": 2}, "the vocabulary is", vocabulary)
    store.close()


def main(qdist, work, tap):
    failed = 0
    for arch in ("llama", "qwen2"):
        path, wrong = os.path.join(work, arch + ".gguf"), None
        write(path, arch)
        try:
            check(qdist, path, arch)
        except Exception as error:  # whatever it is, this check failed and the others go on
            wrong, failed = "%s: %s" % (type(error).__name__, error), failed + 1
            print("interop, gguf, %s: %s" % (arch, wrong))
        with open(tap, "a", encoding="utf-8") as f:
            f.write("%s - interop::gguf_%s%s\n" % ("not ok" if wrong else "ok", arch, ": " + wrong.splitlines()[0] if wrong else ""))
    print("interop, gguf: 2 checks, %d failed" % failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
