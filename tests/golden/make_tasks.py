#!/usr/bin/env python3
"""Log-likelihoods of multiple-choice tasks with PyTorch and transformers, by the rules of lm-evaluation-harness 0.4, written anew.

make_tasks.py MODEL TASKS_FOLDER > tasks/qdist-tiny.json
Made with torch 2.11 and transformers 5.9 in fp32, one request at a time.  TASKS_FOLDER holds piqa.jsonl, mmlu_test.jsonl ... (docs/evaluation.md).
"""
import json
import random
import re
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

JOBS = [("piqa", 0, 8), ("arc_easy", 0, 8), ("arc_challenge", 0, 8), ("boolq", 0, 6), ("hellaswag", 0, 8), ("winogrande", 0, 24),
        ("lambada", 0, 8), ("mmlu", 5, 1), ("piqa", 3, 6), ("winogrande", 5, 6), ("hellaswag", 2, 4), ("boolq", 1, 4), ("mmlu", 0, 1)]
MMLU_LINES = 1000  # the first subjects are enough
FILES = {"hellaswag": "hellaswag_val", "lambada": "lambada_openai", "mmlu": "mmlu_test"}


def clean(text):
    text = text.strip().replace(" [title]", ". ")
    return re.sub("\\[.*?\\]", "", text).replace("  ", " ")


def hellaswag_context(text):
    found = re.search(r"""[.!?]["')]* +([a-z][^.!?]*)$""", text)
    if found:
        at = found.start(1)
        text = text[:at] + text[at].upper() + text[at + 1:]
    return clean(text)


def document(task, row):
    """Contexts and choices, gold, subject."""
    if task == "piqa":
        return [row["query"] + "Answer:"] * 2, row["choices"], row["gold"], None
    if task.startswith("arc"):
        return [row["query"] + "\nAnswer:"] * len(row["choices"]), row["choices"], row["gold"], None
    if task == "boolq":
        return [row["query"].removeprefix("Passage: ") + "\nAnswer:"] * 2, row["choices"], row["gold"], None
    if task == "hellaswag":
        return [hellaswag_context(row["ctx"])] * 4, [clean(e) for e in row["endings"]], row["label"], None
    if task == "winogrande":
        return row["context_options"], [row["continuation"]] * 2, row["gold"], None
    if task == "lambada":
        return [row["context"]], [row["continuation"]], 0, None
    question = row["question"].strip() + "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"])) + "\nAnswer:"
    return [question] * 4, list("ABCD"), row["answer"], row["subject"]


def shot_text(one):
    contexts, choices, gold, _ = one
    return contexts[gold] + " " + choices[gold] + "\n\n"


def prefixes(task, shots, documents, folder):
    stream = random.Random(1234)
    dev = [document(task, row) for row in lines(folder, "mmlu_dev")] if task == "mmlu" else None
    for i, one in enumerate(documents):
        if task == "mmlu":
            head = f"The following are multiple choice questions (with answers) about {one[3].replace('_', ' ')}.\n\n"
            yield head + "".join(shot_text(d) for d in [d for d in dev if d[3] == one[3]][:shots])
        elif shots == 0:
            yield ""
        else:
            drawn = [d for d in stream.sample(range(len(documents)), shots + 1) if d != i][:shots]
            yield "".join(shot_text(documents[d]) for d in drawn)


def lines(folder, name):
    with open(f"{folder}/{name}.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def score(model, tokenizer, context, continuation):
    blanks = len(context) - len(context.rstrip())
    if blanks:
        continuation, context = context[-blanks:] + continuation, context[:-blanks]
    front = tokenizer(context).input_ids
    back = tokenizer(context + continuation).input_ids[len(front):]
    longest = model.config.max_position_embeddings
    ids = (front + back)[-(longest + 1):]
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]])).logits[0].double()
    logits = torch.log_softmax(logits, -1)[-len(back):]
    wanted = torch.tensor(back)
    return logits[torch.arange(len(back)), wanted].sum().item(), int((logits.argmax(-1) == wanted).all()), len(back)


def run(model, tokenizer, task, shots, limit, folder):
    documents = [document(task, row) for row in lines(folder, FILES.get(task, task))[:MMLU_LINES if task == "mmlu" else None]]
    count, rows = {}, []
    for one, prefix in zip(documents, prefixes(task, shots, documents, folder)):
        count[one[3]] = count.get(one[3], 0) + 1
        if count[one[3]] > limit:
            if one[3] is None:
                break
            continue
        found = [score(model, tokenizer, prefix + c, " " + choice) for c, choice in zip(one[0], one[1])]
        values = [value for value, _, _ in found]
        per_character = [value / len(choice) for value, choice in zip(values, one[1])]
        rows.append({"gold": one[2], "loglikelihoods": [round(v, 6) for v in values], "greedy": [g for _, g, _ in found], "tokens": [n for _, _, n in found],
                     "right": max(range(len(values)), key=values.__getitem__) == one[2] if len(values) > 1 else bool(found[0][1]),
                     "right_norm": max(range(len(values)), key=per_character.__getitem__) == one[2]})
    return {"task": task, "num_fewshot": shots, "limit": limit, "documents": rows}


def main():
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
    jobs = [run(model, tokenizer, *job, sys.argv[2]) for job in JOBS]
    print("{\"jobs\": [\n" + ",\n".join(json.dumps(job, separators=(",", ":")) for job in jobs) + "\n]}")


main()
