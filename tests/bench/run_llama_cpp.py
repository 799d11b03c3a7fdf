"""llama.cpp's side of against_llama_cpp.sh: its C functions through the package llama-cpp-python; nothing else is timed.

    prepare GGUF TEXT FOLDER WINDOWS CALIBRATION   FOLDER/q4_0.gguf, evaluation.i32, calibration.i32,
                                                   short and long .txt and .i32
    describe GGUF...                               what was built, and what each file is computed in
    evaluate GGUF IDS.i32 THREADS                  windows of 512 tokens
    generate GGUF PROMPT.i32 THREADS NEW           greedy, NEW tokens

Results are lines "name value", where there is a "_per_second" tokens.
(This file is not named llama_cpp.py, which would hide the package.)
"""
import ctypes
import importlib.metadata
import os
import re
import sys
import time

import llama_cpp
import numpy as np

WINDOW = 512
said = []


@llama_cpp.llama_log_callback
def listen(_level, text, _data):
    said.append(text.decode(errors="replace"))


def need(fine, what):
    if not fine:
        sys.exit(f"run_llama_cpp.py: {what}; llama.cpp's last words: {''.join(said[-5:]).strip()}")


def load(path):
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    need(model, f"{path} cannot be loaded")
    return model


class Context:
    """A context with llama.cpp's defaults but for its size, batches of a whole window and the threads; warmed up."""

    def __init__(self, path, threads, positions):
        start = time.perf_counter()
        self.model = load(path)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = positions
        params.n_batch = params.n_ubatch = WINDOW
        params.n_threads = params.n_threads_batch = threads
        self.ctx = llama_cpp.llama_init_from_model(self.model, params)
        need(self.ctx, f"{path}: no context of {positions} positions")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(WINDOW, 0, 1)
        self.load_seconds = time.perf_counter() - start
        self.decode([0] * WINDOW, 0, False)
        self.clear()

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.ctx), True)

    def decode(self, ids, position, all_logits):
        """Logits of all tokens or of the last one, as a view; the seconds that it took."""
        batch = self.batch
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, position + i, 1, 0
            batch.logits[i] = all_logits or i == len(ids) - 1
        start = time.perf_counter()
        status = llama_cpp.llama_decode(self.ctx, batch)
        logits = llama_cpp.llama_get_logits(self.ctx)
        seconds = time.perf_counter() - start
        need(status == 0, f"llama_decode answers {status}")
        return np.ctypeslib.as_array(logits, (len(ids) if all_logits else 1, self.vocabulary)), seconds


def nll(logits, ids):
    """Sum over the predictions of ids[1:]."""
    rows = logits[: len(ids) - 1].astype(np.float64)
    top = rows.max(axis=1)
    return float(np.sum(top + np.log(np.exp(rows - top[:, None]).sum(axis=1)) - rows[np.arange(len(rows)), ids[1:]]))


def evaluate(path, ids_path, threads):
    ids = np.fromfile(ids_path, dtype="<i4").reshape(-1, WINDOW)
    context = Context(path, int(threads), WINDOW)
    total = seconds = 0.0
    for window in ids:
        context.clear()
        logits, took = context.decode(window.tolist(), 0, True)
        total, seconds = total + nll(logits, window), seconds + took
    print("perplexity", np.exp(total / (len(ids) * (WINDOW - 1))))
    print("tokens_per_second", ids.size / seconds)
    print("whole_tokens_per_second", ids.size / (seconds + context.load_seconds))


def generate(path, prompt_path, threads, new):
    prompt, new = np.fromfile(prompt_path, dtype="<i4").tolist(), int(new)
    context = Context(path, int(threads), WINDOW + len(prompt) + new)
    prompt_seconds = seconds = 0.0
    for first in range(0, len(prompt), WINDOW):
        logits, took = context.decode(prompt[first : first + WINDOW], first, False)
        prompt_seconds += took
    for i in range(new - 1):
        logits, took = context.decode([int(logits[0].argmax())], len(prompt) + i, False)
        seconds += took
    print("prompt_tokens_per_second", len(prompt) / prompt_seconds)
    print("new_tokens_per_second", (new - 1) / seconds)


# ---- models and texts


def quantize(source, target):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    params.output_tensor_type = params.token_embedding_type = llama_cpp.GGML_TYPE_Q8_0
    params.allow_requantize = True
    said.clear()
    status = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
    need(status == 0, f"{source}: not quantized")


def tokenize(model, text):
    vocab, tokens = llama_cpp.llama_model_get_vocab(model), (llama_cpp.llama_token * (len(text) + 8))()
    n = llama_cpp.llama_tokenize(vocab, text, len(text), tokens, len(tokens), False, False)
    need(n >= 0, "the text is not tokenized")
    return list(tokens[:n])


def text_of(model, ids):
    vocab, text = llama_cpp.llama_model_get_vocab(model), ctypes.create_string_buffer(64 * len(ids))
    n = llama_cpp.llama_detokenize(vocab, (llama_cpp.llama_token * len(ids))(*ids), len(ids), text, len(text), False, False)
    need(n >= 0, "the prompt is not spelled")
    return text.raw[:n]


def write(path, content):
    with open(path + ".part", "wb") as f:
        f.write(content)
    os.replace(path + ".part", path)


def write_ids(path, ids):
    write(path, np.array(ids, dtype="<i4").tobytes())


def write_prompt(path, model, text):
    write(path + ".txt", text)
    write_ids(path + ".i32", tokenize(model, text))


def prepare(source, text_path, folder, windows, calibration):
    target = os.path.join(folder, "q4_0.gguf")
    if not os.path.exists(target):
        quantize(source, target + ".part")
        os.replace(target + ".part", target)
    model = load(source)
    with open(text_path, "rb") as f:
        ids = tokenize(model, f.read())
    evaluated, wanted = int(windows) * WINDOW, (int(windows) + int(calibration)) * WINDOW
    if len(ids) < wanted:
        sys.exit(f"run_llama_cpp.py: {text_path} has {len(ids)} tokens, {wanted} are needed")
    write_ids(os.path.join(folder, "evaluation.i32"), ids[:evaluated])
    write_ids(os.path.join(folder, "calibration.i32"), ids[evaluated:wanted])
    write_prompt(os.path.join(folder, "short"), model, b"Once upon a time")
    write_prompt(os.path.join(folder, "long"), model, text_of(model, ids[:WINDOW]))


def describe(*paths):
    ggml = llama_cpp.llama_cpp._lib.ggml_version  # which llama_cpp.h does not declare, but the libraries have
    ggml.restype = ctypes.c_char_p
    print("llama-cpp-python", importlib.metadata.version("llama-cpp-python"))
    print("llama.cpp", llama_cpp.llama_version().decode(), "ggml", ggml().decode())
    print("system", llama_cpp.llama_print_system_info().decode().strip())
    for path in paths:
        said.clear()
        Context(path, 1, WINDOW)
        log = "".join(said)
        for line in re.findall(r"\S+ (?:model|KV) buffer size.*|.*flash_attn.*|.*type +\w+: +\d+ tensors", log):
            print(os.path.basename(path), line)


llama_cpp.llama_log_set(listen, None)
commands = {"prepare": prepare, "describe": describe, "evaluate": evaluate, "generate": generate}
if len(sys.argv) < 2 or sys.argv[1] not in commands:
    sys.exit(__doc__)
commands[sys.argv[1]](*sys.argv[2:])
