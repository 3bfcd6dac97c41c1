"""RQ-VAE: codebooks in a learned space (Lee et al., 2022; TIGER, Rajput et al., 2023)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from sidtune.sids.codebooks import Codebooks, Layer
from sidtune.sids.kmeans import Codes, Floats
from sidtune.sids.quantizers.residual_kmeans import residual_levels

LATENT, HIDDEN = 64, (512, 256)
BATCH, STEPS, LEARNING_RATE = 512, 3_000, 1e-3
# How much the encoder is drawn to the codes, as against the codes to the encoder's outputs; as in
# TIGER.
COMMITMENT = 0.25
# Codes that no vector took for so many steps move to vectors of the batch.
RESTART_EVERY = 100


class ResidualVae(nn.Module):
    """Encoder, codebooks and decoder.

    Args:
        dimensions: of the vectors.
        latent: of what is quantised.
        hidden: widths of the encoder's hidden layers, and backwards of the decoder's.
        skip: whether the encoder's output, zero at first, is added to the vectors.
    """

    def __init__(self, dimensions: int, latent: int, hidden: tuple[int, ...], skip: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = (
            _mlp((dimensions, *hidden, latent)),
            _mlp((latent, *reversed(hidden), dimensions)),
        )
        self.books = nn.ParameterList()
        self.skip = skip
        if skip:
            # It begins as the identity both ways: as residual k-means.
            for network in (self.encoder, self.decoder):
                last = network[-1]
                assert isinstance(last, nn.Linear)
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def encode(self, vectors: Tensor) -> Tensor:
        """Latents `(batch, latent)` of vectors `(batch, dimensions)`."""
        latents: Tensor = self.encoder(vectors)
        return vectors + latents if self.skip else latents

    def forward(self, vectors: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The loss of a batch, the codes of each level, and what each level was asked
        to quantise.
        """
        latents = self.encode(vectors)
        left, total, distance, codes, asked = (
            latents,
            torch.zeros_like(latents),
            latents.new_zeros(()),
            [],
            [],
        )
        for book in self.books:
            asked.append(left.detach())
            chosen = (book.square().sum(1) - 2 * left.detach() @ book.t()).argmin(1)
            row = book[chosen]
            distance = distance + (row - left.detach()).square().sum(1).mean()
            distance = distance + COMMITMENT * (left - row.detach()).square().sum(1).mean()
            left, total = left - row.detach(), total + row.detach()
            codes.append(chosen)
        # Gradients pass the quantiser as if it were not there.
        straight = latents + (total - latents).detach()
        rebuilt = self.decoder(straight) + (straight if self.skip else 0)
        return (rebuilt - vectors).square().sum(1).mean() + distance, codes, asked


def fit(
    vectors: Floats, sizes: list[int], generator: np.random.Generator, *, skip: bool
) -> tuple[Codebooks, Codes]:
    """Codebooks of an RQ-VAE that starts from residual k-means of its encoder's outputs; with
    `skip`, residual k-means refined by gradients (RQ-KMeans+).

    Args:
        skip: as `ResidualVae`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**31)))
        dimensions = vectors.shape[1]
        model = ResidualVae(
            dimensions, dimensions if skip else min(LATENT, dimensions), HIDDEN, skip
        )
        # Of unit mean square, so that one learning rate fits every kind of vector.
        scale = float(np.sqrt(np.mean(vectors**2))) or 1.0
        points = torch.from_numpy(vectors / np.float32(scale))
        with torch.no_grad():
            start = np.concatenate(
                [
                    model.encode(points[at : at + BATCH]).numpy()
                    for at in range(0, len(points), BATCH)
                ]
            )
        model.books.extend(
            nn.Parameter(torch.from_numpy(book))
            for book in residual_levels(start, sizes, generator)
        )
        _train(model, points, generator)
    books = _codebooks(model, scale)
    return books, books.encode(books.project(vectors))


def _train(model: ResidualVae, points: Tensor, generator: np.random.Generator) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, LEARNING_RATE / 10)
    used = [torch.zeros(len(book), dtype=torch.bool) for book in model.books]
    for step in range(1, STEPS + 1):
        batch = points[
            torch.from_numpy(generator.integers(len(points), size=min(BATCH, len(points))))
        ]
        loss, codes, asked = model(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        for level, chosen in zip(used, codes, strict=True):
            level[chosen] = True
        # Late restarts would leave codes where nothing was trained after them.
        if step % RESTART_EVERY == 0 and step <= STEPS * 3 // 4:
            _restart(model, used, asked, generator)


def _restart(
    model: ResidualVae, used: list[Tensor], asked: list[Tensor], generator: np.random.Generator
) -> None:
    """Move codes that nothing took to places where something was asked for."""
    for book, level, wanted in zip(model.books, used, asked, strict=True):
        dead = torch.nonzero(~level)[:, 0]
        with torch.no_grad():
            book[dead] = wanted[torch.from_numpy(generator.integers(len(wanted), size=len(dead)))]
        level.zero_()


def _codebooks(model: ResidualVae, scale: float) -> Codebooks:
    """The trained encoder and codebooks as arrays; the encoder takes vectors that are
    not scaled.
    """
    linear = [layer for layer in model.encoder if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach().numpy().copy() for layer in linear]
    biases = [layer.bias.detach().numpy().copy() for layer in linear]
    levels = [book.detach().numpy().copy() for book in model.books]
    weights[0] /= np.float32(scale)
    if model.skip:
        # What is added has the scale of the vectors, and so have the codes.
        weights[-1], biases[-1] = weights[-1] * np.float32(scale), biases[-1] * np.float32(scale)
        levels = [level * np.float32(scale) for level in levels]
    layers = [
        Layer(weight, bias, relu=at < len(linear) - 1)
        for at, (weight, bias) in enumerate(zip(weights, biases, strict=True))
    ]
    return Codebooks(levels, layers, model.skip)


def _mlp(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Linear(narrow, wide), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
