#!/usr/bin/env python3
"""Make tests/golden/gguf/spm.json: a vocabulary as sentencepiece trains it (tokens, scores, GGUF types), the merges that
transformers makes from it, and the ids that Hugging Face's tokenizers give with them.

    make_gguf_spm.py LLAMA2 OUT      (LLAMA2: tests/golden/tokenizers/llama2; made with transformers 5.9.0, tokenizers 0.22.2)
"""
import json
import os
import random
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers.convert_slow_tokenizer import generate_merges

MARK = "\u2581"


def main(llama2, out):
    random.seed(3)
    with open(os.path.join(llama2, "tokenizer.json"), encoding="utf-8") as f:
        vocab = json.load(f)["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.get)
    # scores as trained ones are: 0 of special and byte tokens, falling by rank; some are the same
    scores = [0.0 if i < 259 else float(-(i - 259) // 3 * 3) for i in range(len(tokens))]
    types = [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259)
    tokens.append("<tool>")
    scores.append(0.0)
    types.append(4)
    merges = generate_merges({t: i for i, t in enumerate(tokens)}, dict(zip(tokens, scores)))
    t = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    t.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    t.add_special_tokens([AddedToken(x, normalized=False, special=True) for x in tokens[:3]])
    t.add_tokens([AddedToken("<tool>", normalized=False, special=False)])
    with open(os.path.join(llama2, "cases.json"), encoding="utf-8") as f:
        texts = [case["text"] for case in json.load(f)]
    cases = [{"text": text, "ids": t.encode(text).ids, "decoded": t.decode(t.encode(text).ids, skip_special_tokens=False)} for text in texts]
    with open(os.path.join(out, "spm.json"), "w", encoding="utf-8") as f:
        parts = {"tokens": tokens, "scores": scores, "types": types, "merges": [list(m) for m in merges], "cases": cases}
        f.write("{" + ",\n".join(json.dumps(key) + ": " + json.dumps(part) for key, part in parts.items()) + "}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
