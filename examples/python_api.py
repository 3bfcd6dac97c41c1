# %% [markdown]
# # sidtune from Python
#
# A made-up shop, a small model from scratch, an evaluation and recommendations, in a minute or two
# on a CPU. `python examples/python_api.py` runs the same as a script.

# %%
import json
import random
import subprocess
import sys
from pathlib import Path

import yaml
from transformers.utils import logging

import sidtune

logging.disable_progress_bar()
FOLDER, USERS, EPOCHS = Path("python-api"), 400, 8

# %% [markdown]
# ## A shop
#
# Four shelves with twelve items each. A customer likes one shelf, and mostly takes the next item of
# it. A semantic ID says shelf, row and place, so that items that are alike share its beginning.
# `sidtune sids` would make semantic IDs from the titles instead.

# %%
shelves = {"coffee": "Roast", "tea": "Blend", "bread": "Loaf", "cheese": "Wheel"}
items, index = {}, {}
for shelf, (kind, word) in enumerate(shelves.items()):
    for place in range(12):
        item = str(12 * shelf + place)
        items[item] = {"title": f"{word} no. {place + 1}", "description": f"From the {kind} shelf."}
        index[item] = [f"<a_{shelf}>", f"<b_{place // 4}>", f"<c_{place % 4}>"]

generator = random.Random(0)
histories = {}
for user in range(USERS):
    shelf, place = generator.randrange(4), generator.randrange(12)
    bought = []
    for _ in range(generator.randrange(5, 10)):
        place = (place + generator.choice([1, 1, 1, 2])) % 12
        bought.append(str(12 * shelf + place))
    histories[f"u{user}"] = bought

FOLDER.mkdir(exist_ok=True)
for name, value in {"item": items, "index": index, "inter": histories}.items():
    (FOLDER / f"shop.{name}.json").write_text(json.dumps(value))

# %% [markdown]
# ## A configuration
#
# The last item of a customer is the test target, and the one before it the validation target. The
# base is a small model with random weights; `model: {base: Qwen/Qwen3-0.6B}` without
# `from_scratch` would fine-tune that one.

# %%
base = FOLDER / "base"
if not base.exists():
    subprocess.run([sys.executable, "-m", "sidtune", "new-model", str(base)], check=True)

configuration = {
    "output_dir": str(FOLDER / "run"),
    "model": {"base": str(base), "from_scratch": True},
    "data": {
        "items": str(FOLDER / "shop.item.json"),
        "index": str(FOLDER / "shop.index.json"),
        "interactions": str(FOLDER / "shop.inter.json"),
    },
    "tasks": {"sid_sequence": None},
    "encoding": {"cache_dir": str(FOLDER / "cache")},
    "training": {"epochs": EPOCHS, "batch_size": 16, "learning_rate": 2.0e-3},
    "eval": {"every": 0.25},
    "rank": {"fit": "never"},
}
(FOLDER / "shop.yaml").write_text(yaml.safe_dump(configuration))
config = sidtune.load_config(FOLDER / "shop.yaml")

# %% [markdown]
# ## Check, train, evaluate

# %%
for finding in sidtune.check(config):
    print(f"{finding.severity}: {finding.where}: {finding.message}")

# %%
trained = sidtune.train(config)
print(trained.text)

# %%
report = sidtune.evaluate(trained.folder)
for name, ranker in report.rankers.items():
    hit = ranker.item["HR@1"]
    print(f"{name:22} HR@1 {hit.value:.3f} ({hit.low:.3f} to {hit.high:.3f})")

# %% [markdown]
# ## Recommend

# %%
recommender = sidtune.Recommender.load(trained.folder)
history = histories["u0"][:-1]
print("bought:", [items[item]["title"] for item in history[-3:]])
for item in recommender.recommend([history], k=3)[0]:
    print(f"{item.score:7.2f}  {item.sid}  {item.title}: {items[item.item_id]['description']}")
