"""The model card: the README.md of a model folder, with usage examples with and without sidtune."""

from __future__ import annotations

import json
from collections.abc import Sequence

CARD = "README.md"
HEAD = """# A recommender over semantic IDs

This model was trained with sidtune. Given the semantic IDs (SIDs) of the items in a user's history,
it generates the SID of the next item. `sid_catalogue.parquet` maps items to SIDs;
`sid_recommender.json` describes the prompt.

With sidtune, using item ids: `sidtune recommend FOLDER --history ID,ID`, or in Python
`sidtune.Recommender.load(FOLDER)`.
"""
WITH_IDS = """
With Transformers only, using SIDs:

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

Use the token ids from the file; do not tokenise the prompt as one text. Tokenizers of the Llama-2
type would add a space after every SID, which the training prompts do not contain, and a chat
template may write the current date.
"""
WITHOUT_IDS = """
Its prompts contain item texts in addition to SIDs, each tokenised separately. Use it with sidtune.
"""
ADAPTER_CARD = """# An adapter of a recommender over semantic IDs

sidtune trained this adapter (LoRA) and the rows of the semantic IDs' tokens. PEFT loads both:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
base = AutoModelForCausalLM.from_pretrained({base})
base.resize_token_embeddings({rows}, mean_resizing=False)
model = PeftModel.from_pretrained(base, ".")
```

`sidtune merge FOLDER OUT` writes the plain model, which `sidtune evaluate` and
`sidtune recommend` use. `sid_catalogue.parquet` maps items to semantic IDs;
`sid_recommender.json` describes the prompt.
"""


def adapter_card(base: str, rows: int) -> str:
    """The text of the card in the folder of an adapter.

    Args:
        base: folder or Hub name of the base model.
        rows: of the embedding that the adapter needs.
    """
    return ADAPTER_CARD.format(base=json.dumps(base, ensure_ascii=False), rows=rows)


def model_card(sid: Sequence[str], with_ids: bool) -> str:
    """The text of the model card.

    Args:
        sid: SID of an item, for the example.
        with_ids: whether the token ids around a history are constant and saved in
            `sid_recommender.json`.
    """
    if not with_ids:
        return HEAD + WITHOUT_IDS
    return HEAD + WITH_IDS.format(
        sid=json.dumps(list(sid), ensure_ascii=False), tokens=len(sid) + 1
    )
