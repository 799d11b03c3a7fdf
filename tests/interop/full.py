"""The heavy part: logits of PyTorch and transformers against ours, for every model of tests/golden/archs and the demo's.

    full.py QDIST LOGITS WORK REPORT

LOGITS is the program of logits.c.  PyTorch runs a store by its effective weights, unpacked by store.py.  All arithmetic is fp32 on
both sides.  Ends with 1 if any figure is beyond its bound.
"""
import json
import os
import platform
import shutil
import subprocess
import sys
import time

import h5py
import numpy as np
import safetensors.numpy
import torch
import transformers

from store import Store

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
LOGITS_BOUND, NLL_BOUND = 2e-4, 1e-5
WINDOWS = 4
STORES = {  # groups that divide no width, groups that divide all of them, whole rows
    "rtn 4 bits": ["--method", "rtn", "-b", "4", "-g", "20"],
    "gptq 3 bits, dynamic order": ["--method", "gptq", "-b", "3", "-g", "16", "--act-order", "dynamic"],
    "gptq 5 bits, symmetric": ["--method", "gptq", "-b", "5", "-g", "-1", "--sym"],
}


def must_run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit("%s\n%s%s" % (" ".join(command), done.stdout, done.stderr))
    return done.stdout


def models(work):
    """name: folder.  Where a model has its configuration in the keys of transformers 4 as well, that is one more."""
    archs, found = os.path.join(ROOT, "tests/golden/archs"), {}
    for name in sorted(os.listdir(archs)):
        found[name] = os.path.join(archs, name)
        older = os.path.join(found[name], "config.v4.json")
        if os.path.exists(older):
            found[name + " (v4 keys)"] = folder = os.path.join(work, name + ".v4")
            shutil.copytree(found[name], folder, copy_function=shutil.copyfile)
            shutil.copyfile(older, os.path.join(folder, "config.json"))
    return {**found, "qdist-tiny": os.path.join(ROOT, "jobs/demo/qdist-tiny")}


def write_ids(folder, seed, path):
    """Random tokens: (windows, tokens), also in the file."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    tokens = min(128, config["max_position_embeddings"] // 2)
    ids = np.random.default_rng(seed).integers(0, config["vocab_size"], (WINDOWS, tokens), dtype=np.int32)
    ids.astype("<i4").tofile(path)
    return ids


def their_logits(folder, ids):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(torch.from_numpy(ids.astype(np.int64))).logits.numpy()


def mean_nll(logits, ids):
    logits = logits[:, :-1].astype(np.float64)
    top = logits.max(axis=2, keepdims=True)
    normalizer = np.log(np.exp(logits - top).sum(axis=2)) + top[..., 0]
    return float((normalizer - np.take_along_axis(logits, ids[:, 1:, None].astype(np.int64), axis=2)[..., 0]).mean())


def export(store_folder, folder):
    """A model folder with the store's effective weights in fp32."""
    store = Store(store_folder)
    os.makedirs(folder)
    shutil.copyfile(os.path.join(store_folder, "config.json"), os.path.join(folder, "config.json"))
    weights = {name: np.ascontiguousarray(weight) for name, weight in store.effective_weights()}
    safetensors.numpy.save_file(weights, os.path.join(folder, "model.safetensors"), {"format": "pt"})
    store.close()


class Comparison:
    def __init__(self, qdist, logits, work):
        self.qdist, self.logits, self.work = qdist, logits, work
        self.rows, self.failed = [], 0

    def path(self, name):
        return os.path.join(self.work, name)

    def our_logits(self, folder, ids):
        must_run(self.logits, folder, self.path("evaluate.i32"), str(ids.shape[1]), self.path("logits.f32"))
        return np.fromfile(self.path("logits.f32"), np.float32).reshape(*ids.shape, -1)

    def our_nll(self, folder, ids):
        out = must_run(self.qdist, "evaluate", "--model", folder, "--dataset", self.path("evaluate.i32"),
                       "--seqlen", str(ids.shape[1]), "--compute-dtype", "fp32", "--json")
        return json.loads(out)["mean_nll"]

    def compare(self, name, ours, theirs, ids, original):
        """One row: our logits and mean NLL of `ours` against theirs of the folder `theirs`; returns theirs."""
        a, b = self.our_logits(ours, ids), their_logits(theirs, ids)
        apart, nll, reference = float(np.abs(a - b).max()), self.our_nll(ours, ids), mean_nll(b, ids)
        relative = abs(nll - reference) / reference
        good = apart <= LOGITS_BOUND and relative <= NLL_BOUND
        moved = float(np.abs(b - original).max()) if original is not None else None
        self.failed += not good
        self.rows.append("| %s | %.1f | %.1e | %.6f | %.1e | %s |%s" % (name, np.abs(b).max(), apart, nll, relative,
                         "-" if moved is None else "%.3f" % moved, "" if good else " **beyond the bound**"))
        print(self.rows[-1], flush=True)
        return b

    def run(self, name, folder, seed):
        ids = write_ids(folder, seed, self.path("evaluate.i32"))
        calibration = write_ids(folder, seed + 1000, self.path("calibrate.i32"))
        original = self.compare(name, folder, folder, ids, None)
        for i, (what, options) in enumerate(STORES.items()):
            store, exported = self.path("%s.%d" % (name, i)), self.path("%s.%d.exported" % (name, i))
            must_run(self.qdist, "quantize", "--model", folder, "--output", store, "--compute-dtype", "fp32", "--dataset",
                     self.path("calibrate.i32"), "--seqlen", str(calibration.shape[1]), "--nsamples", str(WINDOWS), *options)
            export(store, exported)
            self.compare("%s, %s" % (name, what), store, exported, ids, original)


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write_report(comparison, path):
    version = must_run(comparison.qdist, "--version").splitlines()[0]
    head = ["%s; %s, Python %s, PyTorch %s, transformers %s, h5py %s (HDF5 %s), numpy %s; %s" % (
        time.strftime("%Y-%m-%d", time.gmtime()), version, platform.python_version(), torch.__version__,
        transformers.__version__, h5py.__version__, h5py.version.hdf5_version, np.__version__, machine()), "",
        "| model | largest logit | largest difference of logits | our mean NLL | relative difference | moved by quantization |",
        "|---|---|---|---|---|---|"]
    tail = ["", "%d passed, %d failed" % (len(comparison.rows) - comparison.failed, comparison.failed)]
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(head + comparison.rows + tail) + "\n")
    print(tail[-1])


def main():
    qdist, logits, work, report = sys.argv[1:]
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    comparison = Comparison(qdist, logits, work)
    for seed, (name, folder) in enumerate(models(work).items()):
        comparison.run(name, folder, seed)
    write_report(comparison, report)
    return 1 if comparison.failed else 0


if __name__ == "__main__":
    sys.exit(main())
