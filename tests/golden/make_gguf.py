#!/usr/bin/env python3
"""Make tests/golden/gguf: for each type of GGUF tensor three blocks of any bytes (their fp16 scales finite), and the numbers that the
Python package gguf decodes from them.

    make_gguf.py OUT      (made with gguf 0.17.1)

NAME.bin: the blocks, then their elements as little-endian fp32.
"""
import os
import sys

import gguf
import numpy as np

BLOCKS = 3
# type: where its fp16 fields lie in a block
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2],
          "Q5_K": [0, 2], "Q6_K": [208]}


def main(out):
    os.makedirs(out, exist_ok=True)
    random = np.random.default_rng(20)
    for name, halves in HALVES.items():
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
        for at in halves:
            scales = (random.standard_normal(BLOCKS) * 0.01).astype(np.float16)
            scales[-1] = np.float16(6e-8)  # below the normal numbers
            blocks[:, at:at + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
        values = gguf.quants.dequantize(blocks, kind).astype("<f4")
        assert values.shape == (BLOCKS, elements)
        with open(os.path.join(out, name + ".bin"), "wb") as f:
            f.write(blocks.tobytes() + values.tobytes())


if __name__ == "__main__":
    main(sys.argv[1])
