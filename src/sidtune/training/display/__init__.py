"""What a run shows of itself: its plan before the first step, and a display while it trains."""
