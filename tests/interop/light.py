"""The light part: stores of small models, read by other programs' libraries alone.

    light.py make QDIST WORK           quantize the cases into WORK
    light.py check READER WORK TAP     read them, appending a line a check to TAP

READER says where HDF5 finds filter 32015: "plugin" (HDF5_PLUGIN_PATH names ours), "hdf5plugin" (the package), "none" (nowhere:
then reading must fail, or the other two would prove nothing).
"""
import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import safetensors
import safetensors.numpy

from store import Linear, Store, digest, expect, widen

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
TINY = os.path.join(ROOT, "jobs/demo/qdist-tiny")
ARCHS = os.path.join(ROOT, "tests/golden/archs")
TEXT = ["--dataset", "plain:" + os.path.join(ROOT, "docs/architecture.md"), "--nsamples", "4", "--seqlen", "128"]

# name: (model, options, the largest |w - q| / |w| of a linear that is credible; None: the formula of rtn decides)
CASES = {
    "tiny_rtn_4": (TINY, ["--method", "rtn", "-b", "4", "-g", "64"], None),
    "tiny_gptq_3_dynamic": (TINY, ["-b", "3", "-g", "128", "--act-order", "dynamic", "--shard-size", "300K", *TEXT], 0.5),
    "tiny_gptq_5_symmetric": (TINY, ["-b", "5", "-g", "96", "--sym", *TEXT], 0.2),
    "tiny_gptq_4_reference": (TINY, ["-b", "4", "-g", "-1", "--compat", "reference", *TEXT], 0.3),
    "half_rtn_2_symmetric": (os.path.join(ARCHS, "llama_f16"), ["--method", "rtn", "-b", "2", "-g", "-1", "--sym"], None),
    "sharded_rtn_3": (os.path.join(ARCHS, "llama_sharded"), ["--method", "rtn", "-b", "3", "-g", "32"], None),
    "wide_rtn_7": ("wide", ["--method", "rtn", "-b", "7", "-g", "13"], None),
}


def make_wide(folder):
    """An embedding and a head of more than a chunk, the last chunk short."""
    shutil.copytree(os.path.join(ARCHS, "llama"), folder, copy_function=shutil.copyfile)
    weights, config = os.path.join(folder, "model.safetensors"), os.path.join(folder, "config.json")
    tensors = safetensors.numpy.load_file(weights)
    random = np.random.default_rng(1)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = random.standard_normal((9001, tensors[name].shape[1]), dtype=np.float32)
    safetensors.numpy.save_file(tensors, weights)
    with open(config, encoding="utf-8") as f:
        settings = json.load(f)
    with open(config, "w", encoding="utf-8") as f:
        json.dump({**settings, "vocab_size": 9001}, f)


def model_of(case, work):
    return os.path.join(work, "wide") if CASES[case][0] == "wide" else CASES[case][0]


def make(qdist, work):
    make_wide(os.path.join(work, "wide"))
    for case, (_, options, _) in CASES.items():
        command = [qdist, "quantize", "--model", model_of(case, work), "--output", os.path.join(work, case), *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            sys.exit("%s\n%s" % (" ".join(command), done.stdout))


def read_original(folder):
    """name: (dtype, shape, bytes)"""
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            with open(os.path.join(folder, name), "rb") as f:
                for tensor, facts in safetensors.deserialize(f.read()):
                    tensors[tensor] = (facts["dtype"], list(facts["shape"]), bytes(facts["data"]))
    return tensors


def weight_of(original, name):
    dtype, shape, data = original[name]
    kind = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}[dtype]
    return widen(np.frombuffer(data, kind), dtype).reshape(shape)


# ---- checks----


def check_seal(store, case, work):
    store.check_seal()


def check_files(store, case, work):
    store.check_files()
    for file in store.manifest["files"]:
        with open(os.path.join(model_of(case, work), file["name"]), "rb") as f:
            expect(f.read() == store.bytes_of(file["name"]), file["name"], "is no copy")


def check_datasets(store, case, work):
    expect(store.check_parts() > 0, "the store has no parts")


def check_originals(store, case, work):
    """The records are the tensors of the model, each once, by name, type, shape and digest."""
    original = read_original(model_of(case, work))
    records = [record for _, record in store.records() if record["scheme"] != "statistics"]
    expect(sorted(record["name"] for record in records) == sorted(original), "the store's tensors are not the model's")
    for record in records:
        dtype, shape, data = original[record["name"]]
        facts = (record["dtype"], record["shape"], record["source"])
        expect(facts == (dtype, shape, digest(data)), record["name"], "is", facts, "not", (dtype, shape, digest(data)))


def check_plain(store, case, work):
    original, n = read_original(model_of(case, work)), 0
    for entry, record in store.records():
        if record["scheme"] == "none":
            values, n = store.read(entry, record)["values"], n + 1
            expect(values.tobytes() == original[record["name"]][2], record["name"], "has other bits than the original")
    expect(n > 0, "the store has no plain tensors")


def grid(w, q):
    """docs/methods.md, "The grid", without a clip search: scale and zero point of each group."""
    width = w.shape[1] if q.group == -1 else q.group
    starts = np.arange(0, w.shape[1], width)
    low = np.minimum(np.minimum.reduceat(w, starts, axis=1), 0)
    high = np.maximum(np.maximum.reduceat(w, starts, axis=1), 0)
    if q.symmetric:
        high = np.maximum(-low, high)
        low = -high
    scale = ((high - low) / np.float32(2**q.bits - 1)).astype(np.float16)
    if q.symmetric:
        return scale, np.full(scale.shape, 2 ** (q.bits - 1))
    return scale, np.clip(np.rint(-low / scale.astype(np.float32)), 0, 2**q.bits - 1)


def check_rounding(name, w, q):
    top = 2**q.bits - 1
    scale, zero = grid(w, q)
    expect(np.array_equal(scale, q.scales), name, "has other scales than docs/methods.md says")
    expect(np.array_equal(zero, q.zeros), name, "has other zero points than docs/methods.md says")
    s, z = q.spread(q.scales).astype(np.float32), q.spread(q.zeros).astype(np.float32)
    expect(np.array_equal(q.codes, np.clip(np.rint(w / s) + z, 0, top)), name, "has other codes than docs/methods.md says")
    inside = (q.codes > 0) & (q.codes < top)
    apart = np.abs(w.astype(np.float64) - q.weight())
    expect(inside.any() and (apart <= s * 0.500001)[inside].all(), name, "has weights further than s/2 from the original")


def check_linears(store, case, work):
    original, n, largest = read_original(model_of(case, work)), 0, CASES[case][2]
    for entry, record in store.records():
        if record["scheme"] != "uniform":
            continue
        name, n = record["name"], n + 1
        q, w = Linear(record, store.read(entry, record)), weight_of(original, record["name"])
        if largest is None:
            check_rounding(name, w, q)
            continue
        apart = np.linalg.norm(w - q.weight()) / np.linalg.norm(w)
        expect(0 < apart < largest, name, "is", apart, "of its norm away from the original")
    expect(n > 0, "the store has no linears")


INPUT_OF = {"q_proj": "qkv_input", "k_proj": "qkv_input", "v_proj": "qkv_input", "o_proj": "o_input",
            "gate_proj": "gate_up_input", "up_proj": "gate_up_input", "down_proj": "down_input"}


def check_order(store, case, work):
    """Stored positions go by descending diagonal of the Hessian (docs/methods.md, "gptq", 4)."""
    n = 0
    for entry in store.manifest["blocks"]:
        inputs = {record["role"]: record for record in entry["records"] if record["scheme"] == "statistics"}
        for record in entry["records"]:
            if record["scheme"] != "uniform":
                continue
            order = store.read(entry, record)["order"]
            diagonal = store.read(entry, inputs[INPUT_OF[record["role"]]])["diagonal"].astype(np.float32)
            expect((np.diff(diagonal[order]) <= 0).all(), record["name"], "is not in the order of its input's diagonal")
            expect(not np.array_equal(order, np.arange(len(order))), record["name"], "is in its own order")
            n += 1
    expect(n > 0, "the store has no linears")


def checks_of(case):
    checks = [check_seal, check_files, check_datasets, check_originals, check_plain, check_linears]
    return checks + [check_order] if case.endswith("_dynamic") else checks


# ---- running them


def run_check(check, case, work):
    """None, or what is wrong."""
    try:
        store = Store(os.path.join(work, case))
        check(store, case, work)
        store.close()
    except Exception as wrong:  # whatever it is, this check failed and the others go on
        return "%s: %s" % (type(wrong).__name__, wrong)
    return None


def without_filter(work):
    store = Store(os.path.join(work, "tiny_rtn_4"))
    entry, record = next(store.records())
    try:
        store.read(entry, record)
    except OSError:
        return None
    return "a dataset was read without filter 32015"


def check(reader, work, tap):
    if reader == "hdf5plugin":
        import hdf5plugin  # noqa: F401  its import makes the filters known

    if reader == "none":
        results = [("without_filter", without_filter(work))]
    else:
        expect(h5py.h5z.filter_avail(32015), "there is no filter 32015 by", reader)
        results = [("%s_%s" % (case, each.__name__[len("check_"):]), run_check(each, case, work))
                   for case in CASES for each in checks_of(case)]
    failed = [(name, wrong) for name, wrong in results if wrong]
    with open(tap, "a", encoding="utf-8") as f:
        for name, wrong in results:
            f.write("%s - interop::%s_%s%s\n" % ("not ok" if wrong else "ok", reader, name, ": " + wrong if wrong else ""))
    for name, wrong in failed:
        print("%s, reader %s: %s" % (name, reader, wrong))
    print("interop, reader %s: %d checks, %d failed" % (reader, len(results), len(failed)))
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(*sys.argv[2:])
    else:
        sys.exit(check(*sys.argv[2:]))
