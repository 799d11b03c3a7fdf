"""A reader of qdist's stores, written from docs/formats.md alone: it shares nothing with the program that writes them."""
import json
import math
import os

import h5py
import numpy as np

ZSTANDARD = 32015
SHUFFLE = 2
MIB = 1 << 20
ELEMENTS = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<u2", "U8": "|u1", "I32": "<i4", "I64": "<i8"}


class Damage(Exception):
    """The store is not what docs/formats.md says."""


def expect(condition, *what):
    if not condition:
        raise Damage(" ".join(str(part) for part in what))


def digest(data):
    import xxhash  # for checking alone: reading goes without

    return xxhash.xxh3_128_hexdigest(data)


def widen(values, dtype):
    """Elements of type `dtype` as float32."""
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def unpack(codes, bits, columns):
    """Codes U8 (R, ceil(C b / 8)) as numbers (R, C)."""
    stream = np.unpackbits(codes, axis=1, bitorder="little")
    expect(not stream[:, columns * bits :].any(), "there are bits behind the last code")
    each = stream[:, : columns * bits].reshape(len(codes), columns, bits)
    return (each.astype(np.int32) << np.arange(bits, dtype=np.int32)).sum(axis=2)


def chunk_shape(shape, element_bytes):
    chunk, step = [1] * len(shape), element_bytes
    for axis in range(len(shape) - 1, -1, -1):
        if shape[axis] * step <= MIB:
            chunk[axis] = shape[axis]
            step *= shape[axis]
        else:
            pieces = math.ceil(shape[axis] / (MIB // step))
            chunk[axis] = math.ceil(shape[axis] / pieces)
            break
    return tuple(chunk)


class Linear:
    """A record of scheme "uniform": codes, and the grid that they count on, at stored positions."""

    def __init__(self, record, part):
        self.bits, self.group = record["facts"]["bits"], record["facts"]["group_size"]
        self.rows, self.columns = record["shape"]
        groups = 1 if self.group == -1 else math.ceil(self.columns / self.group)
        expect(part["codes"].shape == (self.rows, math.ceil(self.columns * self.bits / 8)), "codes have the wrong shape")
        expect(part["scales"].shape == (self.rows, groups), "scales have the wrong shape")
        self.symmetric = record["facts"]["symmetric"]
        expect(("zeros" not in part) == self.symmetric, "zeros are there exactly where the grid is asymmetric")
        self.codes = unpack(part["codes"], self.bits, self.columns)
        self.scales = part["scales"]
        self.zeros = part.get("zeros", np.full((self.rows, groups), 1 << (self.bits - 1), np.uint8))
        expect(self.zeros.shape == (self.rows, groups), "zeros have the wrong shape")
        self.order = part.get("order", np.arange(self.columns))
        expect(np.array_equal(np.sort(self.order), np.arange(self.columns)), "order is no permutation of the columns")

    def spread(self, of_group):
        """(R, G) as (R, C) at stored positions."""
        width = self.columns if self.group == -1 else self.group
        return np.repeat(of_group, width, axis=1)[:, : self.columns]

    def in_columns(self, stored):
        """(R, C) at stored positions, brought into the columns' own order."""
        out = np.empty_like(stored)
        out[:, self.order] = stored
        return out

    def weight(self):
        """The effective weight: float32 (R, C)."""
        steps = (self.codes - self.spread(self.zeros)).astype(np.float32)
        return self.in_columns(self.spread(self.scales).astype(np.float32) * steps)


class Store:
    def __init__(self, folder):
        self.folder = folder
        expect(not os.path.exists(os.path.join(folder, "partial")), folder, "is not finished")
        self.text = self.bytes_of("manifest.json")
        self.manifest = json.loads(self.text)
        self.entries = self.manifest["blocks"] + [self.manifest["rest"]]
        self.open_files = {}

    def bytes_of(self, name):
        with open(os.path.join(self.folder, name), "rb") as f:
            return f.read()

    def records(self):
        return ((entry, record) for entry in self.entries for record in entry["records"])

    def h5(self, entry, part):
        name = entry["files"][part["file"]]["name"]
        if name not in self.open_files:
            self.open_files[name] = h5py.File(os.path.join(self.folder, name), "r")
        return self.open_files[name]

    def read_part(self, entry, part):
        return self.h5(entry, part)[part["dataset"]][...]

    def read(self, entry, record):
        return {part["name"]: self.read_part(entry, part) for part in record["parts"]}

    def close(self):
        for file in self.open_files.values():
            file.close()
        self.open_files.clear()

    def effective_weights(self):
        """All weights of the model by name, float32: what a store's model computes with."""
        for entry, record in self.records():
            if record["scheme"] == "uniform":
                yield record["name"], Linear(record, self.read(entry, record)).weight()
            elif record["scheme"] == "none":
                yield record["name"], widen(self.read(entry, record)["values"], record["dtype"])

    # ---- what docs/formats.md says of the bytes

    def check_seal(self):
        text = self.text
        expect(text.startswith(b'{\n "format": "qdist",\n "format_version": 1,\n'), "the manifest begins with other members")
        expect(text[:-36].endswith(b',\n "digest": "') and text.endswith(b'"\n}\n'), "the manifest does not end with its seal")
        expect(digest(text[:-36] + b"0" * 32 + text[-4:]) == text[-36:-4].decode(), "the seal is broken")

    def check_files(self):
        """Every file that is listed is whole, and every file that is there is listed."""
        listed = self.manifest["files"] + [file for entry in self.entries for file in entry["files"]]
        for file in listed:
            data = self.bytes_of(file["name"])
            expect(len(data) == file["bytes"], file["name"], "has", len(data), "bytes, listed are", file["bytes"])
            expect(digest(data) == file["digest"], file["name"], "has another digest")
        names = [file["name"] for file in listed]
        expect(len(set(names)) == len(names), "a file is listed twice")
        beside = {name for name in os.listdir(self.folder) if not name.endswith(".log")}
        beside = {name for name in beside if not name.startswith(("report.", "status")) and name != "job.yaml"}
        expect(beside == {"manifest.json", *names}, "the folder holds", sorted(beside), "listed are", sorted(names))

    def check_dataset(self, entry, part):
        """Type, layout, filters, frames and digest of one part."""
        where = entry["files"][part["file"]]["name"] + part["dataset"]
        dataset = self.h5(entry, part)[part["dataset"]]
        wanted = np.dtype(ELEMENTS[part["dtype"]])
        expect(dataset.dtype == wanted, where, "is of type", dataset.dtype, "not", wanted)
        expect(list(dataset.shape) == part["shape"], where, "is of shape", dataset.shape, "not", part["shape"])
        mark = dataset.attrs.get("dtype")
        expect(mark in ((b"BF16", "BF16") if part["dtype"] == "BF16" else (None,)), where, "has the mark", mark)
        expect(dataset.chunks == chunk_shape(dataset.shape, wanted.itemsize), where, "has chunks of", dataset.chunks)
        properties = dataset.id.get_create_plist()
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        expect(filters == [SHUFFLE] * (wanted.itemsize == 2) + [ZSTANDARD], where, "has the filters", filters)
        check_frames(dataset, where)
        values = np.ascontiguousarray(dataset[...])
        expect(digest(values.tobytes()) == part["digest"], where, "has another digest than the manifest says")

    def check_parts(self):
        """Every part, and that the files hold nothing else; returns how many parts there are."""
        seen = {}
        for entry, record in self.records():
            for part in record["parts"]:
                self.check_dataset(entry, part)
                seen.setdefault(entry["files"][part["file"]]["name"], []).append(part["dataset"])
        for name, datasets in seen.items():
            there = []
            self.open_files[name].visititems(lambda path, node: there.append(path) if isinstance(node, h5py.Dataset) else None)
            expect(sorted(there) == sorted(path.lstrip("/") for path in datasets), name, "holds", there)
        return sum(len(datasets) for datasets in seen.values())


def check_frames(dataset, where):
    """Each chunk is one Zstandard frame (RFC 8878) with the size of its content and a checksum."""
    chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    for i in range(dataset.id.get_num_chunks()):
        mask, frame = dataset.id.read_direct_chunk(dataset.id.get_chunk_info(i).chunk_offset)
        expect(mask == 0, where, "has a chunk with the filter mask", mask)
        expect(frame[:4] == b"\x28\xb5\x2f\xfd", where, "has a chunk that is no Zstandard frame")
        descriptor = frame[4]
        single_segment = descriptor >> 5 & 1
        size_bytes = (single_segment, 2, 4, 8)[descriptor >> 6]
        expect(size_bytes > 0 and descriptor >> 2 & 1, where, "has a frame without content size or checksum")
        at = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
        content = int.from_bytes(frame[at : at + size_bytes], "little") + (256 if size_bytes == 2 else 0)
        expect(content == chunk_bytes, where, "has a frame of", content, "bytes in a chunk of", chunk_bytes)
