"""Creates a small base model with random weights, for use without a pretrained one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, set_seed

from sidtune.base.errors import UserError
from sidtune.base.storage import new_folder
from sidtune.base.terminal import console

EOS, PAD, TURN, END_OF_TURN = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] +"
    " '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%"
    " endif %}"
)
# Longer words teach byte-level BPE nothing and make its training quadratic.
LONGEST_WORD = 100
LONGEST_TEXT = 10_000
SMALLEST_VOCABULARY = 300
POSITIONS = 4096
# With more texts than this, training shows a progress bar.
MANY_TEXTS = 20_000


@dataclass(frozen=True)
class NewBase:
    """Number of parameters of the created model and of tokens of its tokenizer."""

    parameters: int
    tokens: int


def create_base(
    folder: Path,
    texts: Sequence[str],
    hidden: int = 128,
    layers: int = 4,
    vocab: int = 8000,
    seed: int = 0,
) -> NewBase:
    """Train a byte-level BPE on the texts and save it with a Qwen3 model of random weights.

    Args:
        folder: must not exist, or be empty; appears only when complete.
        texts: training texts of the tokenizer.
        hidden: hidden size, a multiple of 32.
        layers: transformer blocks.
        vocab: maximum vocabulary size, special tokens included.
        seed: of the weights.

    Raises:
        UserError: for a folder that is not empty or cannot be written, and invalid sizes.
    """
    _check(folder, texts, hidden, layers, vocab)
    tokenizer = _tokenizer(texts, vocab)
    set_seed(seed)
    model = Qwen3ForCausalLM(_config(tokenizer, hidden, layers)).float()
    with new_folder(folder) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
    return NewBase(model.num_parameters(), len(tokenizer))


def _check(folder: Path, texts: Sequence[str], hidden: int, layers: int, vocab: int) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty", "Choose a new folder.")
    if not texts:
        raise UserError("no texts to train a tokenizer on", "Give items with titles: --items FILE.")
    if hidden < 32 or hidden % 32:
        raise UserError(
            f"--hidden {hidden}: expected a multiple of 32", "Give 32, 64, 96, 128, … ."
        )
    if layers < 1:
        raise UserError(f"--layers {layers}: expected at least 1", "Give 1 or more.")
    if vocab < SMALLEST_VOCABULARY:
        raise UserError(
            f"--vocab {vocab}: expected at least {SMALLEST_VOCABULARY} (256 bytes and the special"
            " tokens)",
            f"Give {SMALLEST_VOCABULARY} or more.",
        )


def _tokenizer(texts: Sequence[str], vocab: int) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[EOS, PAD, TURN, END_OF_TURN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=console.is_terminal and len(texts) > MANY_TEXTS,
    )
    backend.train_from_iterator(_training_texts(texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[TURN, END_OF_TURN],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=POSITIONS,
    )


def _training_texts(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        yield " ".join(word[:LONGEST_WORD] for word in text[:LONGEST_TEXT].split(" "))


def _config(tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int) -> Qwen3Config:
    head = 64 if hidden % 64 == 0 and hidden >= 512 else 32
    heads = hidden // head
    return Qwen3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2 if heads % 2 == 0 else heads,
        head_dim=head,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )
