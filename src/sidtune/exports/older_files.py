"""Model and tokenizer files as Transformers 4 reads them; Transformers 5 reads them too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What only Transformers 5 writes.
NEW_TOKENIZER_KEYS = ("backend", "is_local", "local_files_only")
# A message is the prompt itself, as text.
PLAIN_CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def older_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A model's configuration: the base of rotary embeddings and the type of weights under the
    names that Transformers 4 knows.
    """
    tree = {name: value for name, value in config.items() if name != "transformers_version"}
    if "dtype" in tree:
        tree["torch_dtype"] = tree.pop("dtype")
    rope = dict(tree.pop("rope_parameters", None) or {})
    if "rope_theta" in rope:
        tree["rope_theta"] = rope.pop("rope_theta")
    if rope.get("rope_type", "default") != "default":
        tree["rope_scaling"] = rope
    return tree


def older_tokenizer_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer's configuration, with a chat template that writes messages as they are."""
    tree = {name: value for name, value in config.items() if name not in NEW_TOKENIZER_KEYS}
    if tree.get("tokenizer_class") == "TokenizersBackend":
        tree["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(tree.get("extra_special_tokens"), list):
        tree["additional_special_tokens"] = tree.pop("extra_special_tokens")
    return tree | {"chat_template": PLAIN_CHAT}


def renumbered(tokenizer: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    """A tokenizer's JSON with other ids of some added tokens, in the order of ids."""
    added = [
        {**entry, "id": ids.get(entry["content"], entry["id"])}
        for entry in tokenizer["added_tokens"]
    ]
    return {**tokenizer, "added_tokens": sorted(added, key=lambda entry: int(entry["id"]))}
