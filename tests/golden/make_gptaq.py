#!/usr/bin/env python3
"""Make tests/kernels/golden_gptaq.h: GPTAQ (arXiv:2504.02692) on the example of golden_example.h, in double, written down from
its equations with dense matrices and explicit inverses.

    make_gptaq.py > ../kernels/golden_gptaq.h      (made with numpy 2)

    D = (X~ - X) X^T,  P = alpha * triu(D U^T, strictly) U,  H + damping = (U^T U)^-1, U upper
    in a block:  W[:, i:] -= e U[c, i:] - w P[c, i:]      beyond:  W[:, i2:] -= E U[i1:i2, i2:] - W1 P[i1:i2, i2:]

W1 holds each column as it was when it was quantized.  (The published code lets the quantized value take its place there, so
that its result depends on the width of a block.)  Both matrices carry the factor 2 / tokens.
"""
import os
import re

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
BITS, DAMPING = 3, 0.01


def table(name, rows, columns):
    text = open(os.path.join(HERE, "..", "kernels", "golden_example.h")).read()
    body = text[text.index(f"golden_{name}["):]
    body = body[body.index("=") + 1:body.index(";")]
    return np.array([float(x) for x in re.findall(r"-?\d*\.?\d+", body)]).reshape(rows, columns)


def grid(w):
    low, high = np.minimum(w.min(1), 0), np.maximum(w.max(1), 0)
    scale = (high - low) / (2 ** BITS - 1)
    return scale, np.clip(np.rint(-low / scale), 0, 2 ** BITS - 1)


def rounded(w, scale, zero):
    return scale * (np.clip(np.rint(w / scale) + zero, 0, 2 ** BITS - 1) - zero)


def solve(w, x, original, alpha, group, act_order, block):
    tokens, columns = x.shape
    w, grids = w.copy(), {0: grid(w)}
    h, d = 2 / tokens * x.T @ x, 2 / tokens * (original - x).T @ x
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    w[:, dead] = 0
    d[:, dead] = 0
    if group > 0:
        grids = {first // group: grid(w[:, first:first + group]) for first in range(0, columns, group)}
    order = np.argsort(-np.diag(h), kind="stable") if act_order else np.arange(columns)
    w, h, d = w[:, order], h[order][:, order], d[order][:, order]
    h += DAMPING * np.diag(h).mean() * np.eye(columns)
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    p = alpha * np.triu(d @ u.T, 1) @ u
    q, loss = np.zeros_like(w), 0
    for i1 in range(0, columns, block):
        i2 = min(i1 + block, columns)
        w1, e1 = np.zeros((len(w), i2 - i1)), np.zeros((len(w), i2 - i1))
        for c in range(i1, i2):
            scale, zero = grids[order[c] // group if group > 0 else 0]
            now = w[:, c].copy()
            q[:, c] = rounded(now, scale, zero)
            e = (now - q[:, c]) / u[c, c]
            loss += (e ** 2).sum() / 2
            w[:, c:i2] -= np.outer(e, u[c, c:i2]) - np.outer(now, p[c, c:i2])
            w1[:, c - i1], e1[:, c - i1] = now, e
        w[:, i2:] -= e1 @ u[i1:i2, i2:] - w1 @ p[i1:i2, i2:]
    out = np.zeros_like(q)
    out[:, order] = q
    return out, p, loss


def rows(values, digits):
    return ",\n".join("  {" + ", ".join(f"{x:.{digits}g}" for x in row) + "}" for row in values)


def main():
    x, w = table("x", 24, 8), table("w", 3, 8)
    t, c = np.meshgrid(np.arange(24), np.arange(8), indexing="ij")
    original = np.round(x * (1 + .3 * np.sin(.7 * c)) + .15 * np.sin(1.7 * t + 2.3 * c), 3)
    cases = [(.25, -1, False, -1, 128), (1, -1, False, -1, 3), (1, -1, True, -1, 128), (1, 4, True, -1, 5), (1, 4, False, 6, 128)]
    print("/* Made by tests/golden/make_gptaq.py: GPTAQ on the example of golden_example.h, in double. */")
    print("#ifndef QDIST_TESTS_KERNELS_GOLDEN_GPTAQ_H\n#define QDIST_TESTS_KERNELS_GOLDEN_GPTAQ_H\n\n#include <stdbool.h>\n")
    print(f"/* The original's inputs. */\nstatic const double golden_original[24][8] = {{\n{rows(original, 6)}}};\n")
    print("""/* 3 bits, asymmetric, damping 0.01.  group 4: static groups; dead: a column of X (not of the original's) set to 0, or -1.
 * p[a][j]: positions of processing. */
static const struct golden_gptaq {
  double alpha;
  int group;
  bool act_order;
  int dead, block;
  double loss, q[3][8], p[8][8];
} golden_gptaq[] = {""")
    for alpha, group, act_order, dead, block in cases:
        inputs = x.copy()
        if dead >= 0:
            inputs[:, dead] = 0
        q, p, loss = solve(w, inputs, original, alpha, group, act_order, block)
        flag = "true" if act_order else "false"
        print(f"{{{alpha}, {group}, {flag}, {dead}, {block}, {loss:.15g},\n {{\n{rows(q, 15)}}},\n {{\n{rows(p, 15)}}}}},")
    print("};\n\n#endif")


main()
