"""The README.md of a model's folder: how the model is asked, with sidtune and without."""

from __future__ import annotations

import json
from collections.abc import Sequence

CARD = "README.md"
HEAD = """# A recommender over semantic IDs

This model was trained by sidtune. It reads the semantic IDs (SIDs) of the items that a user had, and writes the SID of
the next item. `sid_catalogue.parquet` says which item has which SID, `sid_recommender.json` how the model is asked.

With sidtune, by item ids: `sidtune recommend FOLDER --history ID,ID`, or in Python `sidtune.Recommender.load(FOLDER)`.
"""
WITH_IDS = """
With Transformers alone, by SIDs:

```python
import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
with open(f"{{folder}}/sid_recommender.json", encoding="utf-8") as file:
    prompt = json.load(file)["prompt_ids"]
history = [{sid}]  # SIDs, oldest first
ids = list(prompt["before"])
for place, sid in enumerate(history):
    ids += prompt["separator"] if place else []
    ids += tokenizer.convert_tokens_to_ids(sid)
ids += prompt["after"]
written = model.generate(torch.tensor([ids]), max_new_tokens={tokens})[0, len(ids) :]
print(tokenizer.decode(written))
```

Take the ids from the file, and do not make them by tokenising the prompt as one text: tokenizers of the Llama-2 type
put a space behind every SID then, and training read none. A chat template may also write another prompt another day.
"""
WITHOUT_IDS = """
Its prompts hold texts of the items besides their SIDs, each tokenised on its own. Ask it with sidtune.
"""


def model_card(sid: Sequence[str], with_ids: bool) -> str:
    """The page.

    Args:
        sid: of an item, for the example.
        with_ids: whether the ids around a history are always the same, and stand in `sid_recommender.json`.
    """
    if not with_ids:
        return HEAD + WITHOUT_IDS
    return HEAD + WITH_IDS.format(sid=json.dumps(list(sid), ensure_ascii=False), tokens=len(sid) + 1)
