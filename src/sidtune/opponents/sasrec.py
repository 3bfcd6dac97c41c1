"""SASRec with full cross-entropy, a strong baseline for generative recommenders; uses RePlay's
implementation.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged, place_of, row_of
from sidtune.base.terminal import progress
from sidtune.data.rows import Rows, drawn
from sidtune.data.sequences import whole
from sidtune.metrics.metrics import gains, hits
from sidtune.opponents.baselines import Listing, rank_rows

# The grid is hidden sizes by dropouts; blocks, heads and the longest history are those of Kang &
# McAuley (2018).
HIDDEN, DROPOUT = (64, 128), (0.2, 0.5)
BLOCKS, HEADS, MAX_HISTORY = 2, 1, 50
LEARNING_RATE, BETAS, BATCH_SIZE = 1e-3, (0.9, 0.98), 128
MAX_EPOCHS, PATIENCE = 200, 10
METRIC_K, VALID_ROWS = 10, 5000
ROWS_AT_ONCE = 1024
FEATURE = "item"


@dataclass(frozen=True)
class Trial:
    """A point of the grid: its best epoch, counted from 1, and its metrics by item on the
    validation rows.
    """

    hidden: int
    dropout: float
    epoch: int
    ndcg: float
    hr: float
    seconds: float


@dataclass(frozen=True)
class SasrecScorer:
    """A trained SASRec model as a `Scorer`.

    Args:
        module: RePlay's model.
        items: size of the catalogue; the number after the last item is the padding.
        longest: number of newest items of a history that are read, since later positions were not
            trained.
    """

    module: Any
    items: int
    longest: int

    def __call__(self, history: Ragged) -> NDArray[np.float64]:
        """Logits of all items, `(rows, items)`."""
        self.module.eval()
        device = next(self.module.parameters()).device
        parts = []
        with torch.inference_mode():
            for rows in np.split(
                np.arange(len(history)), range(ROWS_AT_ONCE, len(history), ROWS_AT_ONCE)
            ):
                inputs = _left_padded(history.take(rows), self.longest, self.items).to(device)
                logits = self.module({FEATURE: inputs}, inputs != self.items)["logits"]
                parts.append(logits.cpu().numpy().astype(np.float64))
        return np.concatenate(parts)


def require_library() -> None:
    """Raise `UserError` where RePlay is missing, before anything is computed."""
    try:
        import replay.nn.sequential.sasrec  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"SASRec needs RePlay, which cannot be imported: {error}",
            "Run pip install 'sidtune[baselines]', or use --simple for the simple baselines without"
            " extra library.",
        ) from error


def tune(
    train: Rows, valid: Rows, listing: Listing, items: int, seed: int
) -> tuple[SasrecScorer, list[Trial]]:
    """Train every point of the grid; returns the best scorer by item-level NDCG@10 on validation
    rows, and all trials.

    Args:
        valid: at most `VALID_ROWS` of them are ranked, drawn by seed.
        listing: what may be listed, as in the evaluation that follows.
        items: size of the catalogue.
    """
    longest = min(MAX_HISTORY, int(train.history.lengths.max()))
    pieces = _pieces(whole(train).items, longest)
    valid = valid.take(drawn(len(valid.target), VALID_ROWS, seed))
    trials: list[Trial] = []
    best: SasrecScorer | None = None
    for hidden, dropout in product(HIDDEN, DROPOUT):
        # The global generator draws weights and dropout.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            scorer = SasrecScorer(_new_module(hidden, dropout, items, longest), items, longest)
            trial = _train(
                scorer, pieces, valid, listing, hidden, dropout, np.random.default_rng(seed)
            )
        if best is None or trial.ndcg > max(entry.ndcg for entry in trials):
            best = scorer
        trials.append(trial)
    assert best is not None
    return best, trials


def describe(trials: Sequence[Trial]) -> dict[str, Any]:
    """The settings and results of the grid search, as JSON values."""
    return {
        "library": f"replay-rec {version('replay-rec')}",
        "blocks": BLOCKS,
        "heads": HEADS,
        "max_history": MAX_HISTORY,
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
        "patience": PATIENCE,
        "grid": [asdict(trial) for trial in trials],
    }


def _train(
    scorer: SasrecScorer,
    pieces: Ragged,
    valid: Rows,
    listing: Listing,
    hidden: int,
    dropout: float,
    random: np.random.Generator,
) -> Trial:
    """Train with early stopping, and restore the weights of the best epoch."""
    optimizer = torch.optim.Adam(scorer.module.parameters(), lr=LEARNING_RATE, betas=BETAS)
    began, name = time.monotonic(), f"SASRec, hidden {hidden}, dropout {dropout}"
    best, weights = Trial(hidden, dropout, 0, -1.0, 0.0, 0.0), None
    for epoch in range(1, MAX_EPOCHS + 1):
        _run_epoch(scorer, pieces, optimizer, random, f"{name}, epoch {epoch}")
        ranks = rank_rows("validation", scorer, valid.history, valid.target, listing).item_ranks
        ndcg, hr = (float(metric(ranks, METRIC_K).mean()) for metric in (gains, hits))
        if ndcg > best.ndcg:
            best = Trial(hidden, dropout, epoch, ndcg, hr, 0.0)
            weights = copy.deepcopy(scorer.module.state_dict())
        if epoch - best.epoch >= PATIENCE:
            break
    scorer.module.load_state_dict(weights)
    return replace(best, seconds=round(time.monotonic() - began, 1))


def _run_epoch(
    scorer: SasrecScorer,
    pieces: Ragged,
    optimizer: torch.optim.Optimizer,
    random: np.random.Generator,
    name: str,
) -> None:
    module, padding = scorer.module.train(), scorer.items
    device = next(module.parameters()).device
    batches = np.array_split(random.permutation(len(pieces)), -(-len(pieces) // BATCH_SIZE))
    for batch in progress(batches, name, len(pieces), len):
        table = _left_padded(pieces.take(batch), scorer.longest + 1, padding).to(device)
        inputs, labels = table[:, :-1], table[:, 1:]
        there = inputs != padding
        states = module.body({FEATURE: inputs}, there)[there]
        # As one long row, so that no softmax is computed for padding.
        wanted = labels[there][None, :, None]
        loss = module.loss(
            states[None], {}, wanted, None, None, torch.ones_like(wanted, dtype=torch.bool)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _new_module(hidden: int, dropout: float, items: int, longest: int) -> Any:
    from replay.data import FeatureHint, FeatureType
    from replay.data.nn import TensorFeatureInfo, TensorSchema
    from replay.nn.sequential.sasrec import SasRec

    item = TensorFeatureInfo(
        FEATURE,
        FeatureType.CATEGORICAL,
        is_seq=True,
        feature_hint=FeatureHint.ITEM_ID,
        cardinality=items,
        padding_value=items,
        embedding_dim=hidden,
    )
    module = SasRec.from_params(
        TensorSchema([item]),
        embedding_dim=hidden,
        num_heads=HEADS,
        num_blocks=BLOCKS,
        max_sequence_length=longest,
        dropout=dropout,
    )
    return module.to("cuda" if torch.cuda.is_available() else "cpu")


def _pieces(sequences: Ragged, longest: int) -> Ragged:
    """Sequences cut so that every item but a sequence's first is a target once, after at most
    `longest` items.
    """
    pieces = [
        sequence[max(0, end - longest - 1) : end].tolist()
        for sequence in map(sequences.__getitem__, range(len(sequences)))
        for end in range(len(sequence), 1, -longest)
    ]
    return Ragged.from_lists(pieces)


def _left_padded(lists: Ragged, longest: int, fill: int) -> torch.Tensor:
    """The newest items of each list, left-padded to the longest, `(rows, width)`: SASRec counts
    positions from the end.
    """
    newest = lists.latest(longest)
    width = int(newest.lengths.max())
    table = np.full((len(newest), width), fill, np.int64)
    table[row_of(newest), place_of(newest) + np.repeat(width - newest.lengths, newest.lengths)] = (
        newest.values
    )
    return torch.from_numpy(table)
