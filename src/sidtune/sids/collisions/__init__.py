"""What happens to items that share a SID; `RULES` is the only registry."""

from __future__ import annotations

from sidtune.config.sids import CollisionRule
from sidtune.sids.collisions import extra_token, keep, reassign
from sidtune.sids.collisions.outcome import Rule

RULES: dict[CollisionRule, Rule] = {
    "reassign": reassign.resolve,
    "extra_token": extra_token.resolve,
    "keep": keep.resolve,
}
