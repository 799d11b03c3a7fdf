#!/usr/bin/env python3
"""Make tests/golden/chat_templates/cases.json: what transformers' apply_chat_template gives for the templates that lie there.

    make_chat_templates.py tests/golden/chat_templates      (made with transformers 5.9, jinja2 3.1)

strftime_now is what a template may ask for; qdist has none (the day would be part of the text), so it is left undefined here too.
"""
import json
import os
import sys

import transformers.utils.chat_template_utils as chat

PLAIN = [{"role": "user", "content": "  Hi, who are you? \n"}, {"role": "assistant", "content": "A machine.\u3000"}]
TALK = [{"role": "system", "content": "Be brief. \u4f60\u597d"}, *PLAIN, {"role": "user", "content": "Why \"quoted\" \\ back?"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "The weather of a city\u2026", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}}, "required": ["city"]}, "return": {"type": "string"}}}]
CALL = [*TALK[:2], {"role": "assistant", "content": "", "tool_calls": [{"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"city": "Z\u00fcrich", "days": 2, "share": 0.5, "wet": None}}}]},
        {"role": "tool", "tool_call_id": "abcdefghi", "name": "weather", "content": "{\"sun\": true}"}, {"role": "assistant", "content": "Sunny."}]
THINK = [*PLAIN[:1], {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}, {"role": "user", "content": "And?"}, {"role": "assistant", "content": "<think>\nwell\n</think>\n\nNo."}]
CASES = [{"messages": PLAIN}, {"messages": PLAIN[:1]}, {"messages": TALK}, {"messages": CALL, "tools": TOOLS}, {"messages": CALL}, {"messages": THINK},
         {"messages": TALK, "tools": TOOLS}, {"messages": [PLAIN[1]]}, {"messages": [{"role": "user", "content": ""}]}]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def main():
    folder = sys.argv[1]
    result = []
    for name in sorted(n for n in os.listdir(folder) if n.endswith(".jinja")):
        template = chat._compile_jinja_template(open(os.path.join(folder, name), encoding="utf-8", newline="").read())
        template.environment.globals.pop("strftime_now", None)
        template.globals.pop("strftime_now", None)
        for case in CASES:
            variables = {"messages": case["messages"], "tools": case.get("tools"), "documents": None, "add_generation_prompt": False, **SPECIAL}
            try:
                expected = {"text": template.render(**variables)}
            except Exception as error:
                expected = {"error": type(error).__name__ + ": " + str(error)}
            result.append({"template": name, "variables": variables, **expected})
    with open(os.path.join(folder, "cases.json"), "w", encoding="utf-8") as f:
        json.dump(result, f, ensure_ascii=False, indent=0)
    print(len(result), "cases", sum("error" in r for r in result), "errors")


main()
