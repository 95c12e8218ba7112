"""Answer chats with ``transformers`` alone: a program that ``export --verify`` runs without this package.

It reads a line of JSON for each chat from standard input, ``{"conversation": […], "enable_thinking": true, …}``, and
writes the ids of its prompt and the text of its answer, in the same order.
"""

import json
import sys
from typing import Any

_BATCH = 64


def answer_chats() -> None:
    """Answer the chats on standard input.

    The arguments of the process are a model folder, a data type, and the largest number of tokens of an answer.
    """
    sys.modules["guardreasoner"] = None  # type: ignore[assignment]  # an import of it fails
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder, dtype, max_new_tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True)
    network.to(device).eval()
    prompts = [
        tokenizer.apply_chat_template(**json.loads(line), tokenize=True, add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
        for line in sys.stdin
    ]
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    texts = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    for start in range(0, len(order), _BATCH):
        places = order[start : start + _BATCH]
        width = max(len(prompts[place]) for place in places)
        padded = [[pad] * (width - len(prompts[place])) + prompts[place] for place in places]
        mask = [[0] * (width - len(prompts[place])) + [1] * len(prompts[place]) for place in places]
        with torch.inference_mode():
            outputs = network.generate(
                input_ids=torch.tensor(padded, device=device),
                attention_mask=torch.tensor(mask, device=device),
                do_sample=False,
                max_new_tokens=max_new_tokens,
            )
        for place, output in zip(places, outputs, strict=True):
            texts[place] = tokenizer.decode(output[width:], skip_special_tokens=True)
    for ids, text in zip(prompts, texts, strict=True):
        print(json.dumps({"ids": ids, "text": text}))


if __name__ == "__main__":
    answer_chats()
