#!/usr/bin/env python3
"""Windows of texts by the conventions of published results (IST-DASLab/gptq, datautils.py; llama.cpp), with transformers' tokenizer.

make_texts.py TOKENIZER_FOLDER TEXT_FOLDER > texts/qdist-tiny.json
TEXT_FOLDER holds wikitext2.test.raw, wikitext2.train-1MB.txt and c4-sample.txt, whose lines are cut into documents of up to 1000 bytes.
The hash is FNV-1a, 64 bits, over the ids of all windows as little-endian int32.
"""
import json
import random
import struct
import sys

from transformers import AutoTokenizer

SEQLEN = {"wikitext2": 256, "c4": 192, "c4-new": 256, "llama.cpp": 512}


def fnv(ids):
    value = 0xCBF29CE484222325
    for byte in struct.pack(f"<{len(ids)}i", *ids):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def entry(windows, tokens):
    return {"seqlen": len(windows[0]), "tokens": tokens, "windows": len(windows), "first": windows[0][:8], "last": windows[-1][:8],
            "fnv1a": fnv([i for w in windows for i in w])}


def cut(ids, length, most=None):
    n = len(ids) // length
    return [ids[i * length:(i + 1) * length] for i in range(n if most is None else min(n, most))]


def rows(path):
    with open(path, encoding="utf-8", newline="\n") as file:
        lines = file.read().split("\n")
    if lines[-1] == "":
        lines.pop()
        lines = [line + "\n" for line in lines]
    else:
        lines = [line + "\n" for line in lines[:-1]] + lines[-1:]
    return ["" if not line.strip() else line for line in lines]


def pieces(text):
    """Lines, the long ones cut at the last blank within 1000 bytes."""
    out = []
    for line in text.split(b"\n"):
        while len(line) > 1000 and line.rfind(b" ", 0, 1000) > 0:
            at = line.rfind(b" ", 0, 1000)
            out.append(line[:at].decode())
            line = line[at + 1:]
        if line:
            out.append(line.decode())
    return out


def draw(encode, documents, length, n, seed):
    random.seed(seed)
    known, windows = {}, []
    for _ in range(n):
        while True:
            i = random.randint(0, len(documents) - 1)
            if i not in known:
                known[i] = encode(documents[i])
            if len(known[i]) >= length:
                break
        spare = len(known[i]) - length
        j = random.randint(0, spare - 1) if spare else 0
        windows.append(known[i][j:j + length])
    return windows, sum(map(len, known.values()))


def main():
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])

    def encode(text):
        return tokenizer(text).input_ids

    test, train, c4 = (f"{sys.argv[2]}/{name}" for name in ("wikitext2.test.raw", "wikitext2.train-1MB.txt", "c4-sample.txt"))
    documents = pieces(open(c4, "rb").read())
    out = {"documents": len(documents)}
    ids = encode("\n\n".join(rows(test)))
    out["wikitext2"] = entry(cut(ids, SEQLEN["wikitext2"]), len(ids))
    ids = encode("\n\n".join(rows(train)))
    random.seed(2)
    places = [random.randint(0, len(ids) - SEQLEN["wikitext2"] - 1) for _ in range(16)]
    out["wikitext2 calibration"] = entry([ids[p:p + SEQLEN["wikitext2"]] for p in places], len(ids))
    out["c4"] = entry(*draw(encode, documents, SEQLEN["c4"], 256, 0))
    out["c4 calibration"] = entry(*draw(encode, documents, SEQLEN["c4"], 16, 2))
    ids = encode(" ".join(documents[:1100]))
    out["c4-new"] = entry(cut(ids, SEQLEN["c4-new"], 256), len(ids))
    ids = encode(open(test, encoding="utf-8", newline="\n").read().removesuffix("\n"))
    out["llama.cpp"] = entry(cut(ids, SEQLEN["llama.cpp"]), len(ids))
    print(json.dumps(out, indent=1))


main()
