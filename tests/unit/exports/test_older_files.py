"""Files as Transformers 4 reads them."""

from __future__ import annotations

from sidtune.exports.older_files import older_config, older_tokenizer_config, renumbered


def test_rotary_embeddings_and_types_get_their_older_names() -> None:
    rope = {"rope_theta": 5.0, "rope_type": "default"}
    tree = {"dtype": "float32", "rope_parameters": rope, "transformers_version": "5", "x": 1}
    assert older_config(tree) == {"torch_dtype": "float32", "rope_theta": 5.0, "x": 1}
    scaled = {"rope_parameters": {"rope_theta": 5.0, "rope_type": "linear", "factor": 2}}
    assert older_config(scaled) == {
        "rope_theta": 5.0,
        "rope_scaling": {"rope_type": "linear", "factor": 2},
    }
    assert older_config({"rope_theta": 7}) == {"rope_theta": 7}


def test_tokenizers_lose_what_is_new() -> None:
    tree = {
        "backend": "tokenizers",
        "is_local": True,
        "tokenizer_class": "TokenizersBackend",
        "extra_special_tokens": ["<x>"],
    }
    found = older_tokenizer_config(tree)
    assert found.pop("chat_template")
    assert found == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["<x>"],
    }


def test_added_tokens_stand_in_the_order_of_their_ids() -> None:
    added = [{"content": "<a>", "id": 5}, {"content": "<b>", "id": 6}, {"content": "</s>", "id": 0}]
    found = renumbered({"added_tokens": added, "model": {}}, {"<a>": 6, "<b>": 5})
    assert found == {
        "added_tokens": [
            {"content": "</s>", "id": 0},
            {"content": "<b>", "id": 5},
            {"content": "<a>", "id": 6},
        ],
        "model": {},
    }
