#!/usr/bin/env python3
"""Make tests/golden/tokenizers: small tokenizers built like those of the model families that are supported, and the ids that
Hugging Face's tokenizers library gives with them.

    make_tokenizers.py CORPUS.txt OUT      (made with tokenizers 0.22.2; any English text of a few hundred kB will do)

The tokenizers are trained on the corpus, so another corpus makes other files; the tests read whatever is there.
"""
import json
import os
import random
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

MARK = "\u2581"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
          r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
          r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

TEXTS = [
    "", " ", "  ", "a", "Hello, world!", " leading", "trailing ", "Once upon a time, there was a little girl named Lily.",
    "  two  spaces\tand\ttabs\n\n\nthree newlines", "Don't you'll WE'VE it's I'D o'clock '\u017f", "3.14159 and 1234567890, x86_64; a+b==c?",
    "caf\u00e9 na\u00efve \u00fcber \u2014 \u201cquoted\u201d \u2026", "cafe\u0301 A\u030a \u1e9b\u0323 \uac00 \u1100\u1161\u11a8",
    "\u4e2d\u6587\u5b57\u7b26 \u65e5\u672c\u8a9e \u30ab\u30bf\u30ab\u30ca \ud55c\uad6d\uc5b4", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440",
    "\u0645\u0631\u062d\u0628\u0627 \u0661\u0662\u0663 \u0928\u092e\u0938\u094d\u0924\u0947", "\U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "\u00bd \u2167 \u00b2 \u2460 \u0664\u0665", "no\u00a0break\u00a0space \u3000wide \u2003em \u200bzero \u180emongolian \u0085next",
    "line one\r\nline two\r\n\r\nline four\n", "\n", "\r\n", "\n\n  \n", "   \t \n  x", " " * 50 + "x" + " " * 33, "\t\t\tint main(void) {\n\t\treturn 0;\n\t}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "....!!!???---___===", "CamelCaseWords and SCREAMING_SNAKE andÜmläuts ÀÉ\u01c5\u02b0",
    "\u2581already\u2581marked \u2581\u2581", "a\u0000b", "\ufeffbyte order mark", "\ufffd\ufffe", "\U0010ffff\U000e0001", "http://example.org/a?b=c&d=e#f",
    "<s>", "<s> text", "text</s>", "a<s>b</s>c", "a <s> b  </s>  c", "<s><s></s>", "<unk>", "<0x41><0x0A>", "<|begin_of_text|>hi<|end_of_text|>",
    "<|im_start|>user\nhi<|im_end|>\n", "<|im_star", "<tool> x<tool>y <tool>", " word  word, wordy word-word \u00e9word word\u0301 ", "<left>  <left>a  <left>",
    "a <right>  b<right>\n\n<right>", "<long><longer><longest><long", "NORM norm \ufb01x ﬁx <n\u00f6rm> <no\u0308rm>", "[MASK] [MASK]\u3000[MASK]", "-1,234-5,,6--7",
]


def fuzz(n, seed=0):
    random.seed(seed)
    alphabet = list("abcdeE'stmlrv 0123456789.,-_/\n\r\t<>|") + ["  ", "\u00e9", "\u0301", "\u4e2d", "\U0001f600", "\u00a0", "<s>", "</s>",
                "<tool>", "word", "<left>", "<right>", "\u2581", "the ", "ing", "\u00c5", "\ufb01", "\u3000", "\u0000", "\u0327\u0302"]
    return ["".join(random.choice(alphabet) for _ in range(random.randint(1, 40))) for _ in range(n)]


def train(corpus, splitter, size, alphabet=()):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = splitter
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=list(alphabet)))
    model = json.loads(t.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [tuple(m) for m in model["merges"]]


def added(content, id, special=True, **flags):
    token = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": not special, "special": special}
    return {**token, **flags}


def model(vocab, merges, **facts):
    base = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
            "byte_fallback": False, "ignore_merges": False, "vocab": {t: i for i, t in enumerate(vocab)}, "merges": merges}
    return {**base, **facts}


def template(before, after=()):
    piece = lambda t: {"SpecialToken": {"id": t[0], "type_id": 0}}
    single = [piece(t) for t in before] + [{"Sequence": {"id": "A", "type_id": 0}}] + [piece(t) for t in after]
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {n: {"id": n, "ids": [i], "tokens": [n]} for n, i in list(before) + list(after)}}


def byte_level(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(key, parts):
    return {"type": "Sequence", key: parts}


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def metaspace(scheme, split):
    return {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": split}


LEGACY = sequence("normalizers", [{"type": "Prepend", "prepend": MARK}, replace(" ", MARK)])
SP_DECODER = sequence("decoders", [replace(MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}])
BYTES = ["<0x%02X>" % b for b in range(256)]


def families(corpus):
    sp_vocab, sp_merges = train(corpus, pre_tokenizers.Metaspace(), 420)
    specials = ["<unk>", "<s>", "</s>"]
    sp = specials + BYTES + [t for t in sp_vocab if t not in specials]
    sp_added = [added(t, i) for i, t in enumerate(specials)]
    bare = specials + sp_vocab
    byte_split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bl_vocab, bl_merges = train(corpus, byte_split, 620, pre_tokenizers.ByteLevel.alphabet())
    n = len(bl_vocab)
    first, last = ("<|begin_of_text|>", n), ("<|end_of_text|>", n + 1)
    text_ends = [added(*first), added(*last)]
    whole = bl_vocab + ["\u0120Lily", "\u0120girl1"]  # tokens that no merge makes
    odd_added = [added("<s>", n), added("</s>", n + 1), added("<tool>", n + 2, lstrip=True, rstrip=True), added("word", n + 3, False, single_word=True),
                 added("<left>", n + 4, lstrip=True), added("<right>", n + 5, False, rstrip=True), added("<long>", n + 6), added("<longer>", n + 7, False, normalized=False),
                 added("<long><longer>", n + 8), added("NORM", n + 9, False), added("<n\u00f6rm>", n + 10, False), added("[MASK]", n + 11, True, lstrip=True, normalized=True)]
    # Without merges, and with a mark before each piece, ids show where an expression cuts.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet()) + [MARK]
    show = lambda *parts: dict(pre_tokenizer=sequence("pretokenizers", [*parts, metaspace("always", False)]), decoder=byte_level(), added_tokens=[],
                               model=model(letters, []), bos=None)
    return {
        "cuts_gpt2": show(byte_level(False, True)), "cuts_llama3": show(split(LLAMA3), byte_level()),
        "cuts_qwen2": show(split(QWEN2), byte_level()), "cuts_tekken": show(split(TEKKEN), byte_level()),
        "cuts_digits": show({"type": "Digits", "individual_digits": True}, split(r"\p{Lu}+(?=\p{Ll})|(?<=\S)[\t ]|\P{L}{3,5}?x", "MergedWithNext"), byte_level()),
        "llama2": dict(normalizer=LEGACY, post_processor=template([("<s>", 1)]), decoder=SP_DECODER, added_tokens=sp_added,
                       model=model(sp, sp_merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True), bos="<s>"),
        "mistral": dict(pre_tokenizer=metaspace("first", False), post_processor=template([("<s>", 1)]), decoder=SP_DECODER,
                        added_tokens=sp_added, model=model(sp, [" ".join(m) for m in sp_merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True), bos="<s>"),
        "llama3": dict(pre_tokenizer=sequence("pretokenizers", [split(LLAMA3), byte_level()]),
                       post_processor=sequence("processors", [byte_level(True, True), template([(first[0], n + 2)])]), decoder=byte_level(True, True),
                       added_tokens=[added(first[0], n + 2), added(last[0], n + 3)], model=model(whole, [" ".join(m) for m in bl_merges], ignore_merges=True), bos=first[0]),
        "qwen2": dict(normalizer={"type": "NFC"}, pre_tokenizer=sequence("pretokenizers", [split(QWEN2), byte_level()]), post_processor=byte_level(),
                      decoder=byte_level(), added_tokens=[added("<|endoftext|>", n), added("<|im_start|>", n + 1), added("<|im_end|>", n + 2), added("<tool>", n + 3, False, normalized=False)],
                      model=model(bl_vocab, bl_merges, unk_token=None), bos=None),
        "smollm": dict(pre_tokenizer=sequence("pretokenizers", [{"type": "Digits", "individual_digits": True}, byte_level(False, True)]), decoder=byte_level(True, True),
                       added_tokens=[added("<|endoftext|>", n), added("<|im_start|>", n + 1), added("<|im_end|>", n + 2)], model=model(bl_vocab, bl_merges), bos="<|im_start|>"),
        "tekken": dict(pre_tokenizer=sequence("pretokenizers", [split(TEKKEN), byte_level()]), post_processor=template([("<s>", n + 1)]), decoder=byte_level(True, True),
                       added_tokens=[added("<unk>", n), added("<s>", n + 1), added("</s>", n + 2)], model=model(bl_vocab, bl_merges, ignore_merges=True), bos="<s>"),
        "unknown": dict(pre_tokenizer=metaspace("always", True), decoder=metaspace("always", True), post_processor=template([("<s>", 1)], [("</s>", 2)]),
                        added_tokens=sp_added, model=model(bare, sp_merges, unk_token="<unk>", fuse_unk=True), bos="<s>"),
        "unfused": dict(normalizer=replace(" ", MARK), pre_tokenizer=split(MARK, "MergedWithPrevious", kind="String"), added_tokens=sp_added,
                        model=model(bare, sp_merges, unk_token="<unk>"), bos="<s>"),
        "odd": dict(normalizer=sequence("normalizers", [{"type": "NFKC"}, replace(r"\s{2,}", " ", "Regex")]),
                    pre_tokenizer=sequence("pretokenizers", [split(",", "Removed", kind="String"), split("[aeiou]+", "MergedWithPrevious"), split("-", "MergedWithNext", kind="String"),
                                                             split(r"\p{P}|\d", "Contiguous", True), byte_level(True, False)]),
                    post_processor=template([("<s>", n)], [("</s>", n + 1)]), decoder=byte_level(), added_tokens=odd_added, model=model(bl_vocab, bl_merges), bos="<s>"),
        "strange": dict(normalizer=sequence("normalizers", [{"type": "NFKD"}, {"type": "NFD"}, {"type": "Prepend", "prepend": "-"}]),
                        pre_tokenizer=sequence("pretokenizers", [{"type": "Digits", "individual_digits": False}, split("x?", "Isolated"), split(r"[^\s\w]+".replace(r"\w", r"\p{L}\p{N}"), "Removed", True),
                                                                 metaspace("never", True)]),
                        decoder=sequence("decoders", [replace("[aeiou]", "*", "Regex"), metaspace("never", False)]), added_tokens=sp_added,
                        model=model(bare, sp_merges, unk_token="<unk>", fuse_unk=True), bos="<s>"),
    }


def cases(tokenizer, texts):
    result = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        result.append({"text": text, "ids": ids, "plain": plain, "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
    return result


def main():
    corpus_path, out = sys.argv[1:]
    corpus = open(corpus_path, encoding="utf-8").read().split("\n")
    for name, facts in families(corpus).items():
        bos = facts.pop("bos")
        keys = ["added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model"]
        text = json.dumps({"version": "1.0", "truncation": None, "padding": None, **{k: facts.get(k) for k in keys}}, ensure_ascii=False, separators=(",", ":"))
        folder = os.path.join(out, name)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
            f.write(text)
        with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
            json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos}, f)
        with open(os.path.join(folder, "cases.json"), "w", encoding="utf-8") as f:
            json.dump(cases(Tokenizer.from_str(text), TEXTS + fuzz(40)), f, separators=(",", ":"))


main()
