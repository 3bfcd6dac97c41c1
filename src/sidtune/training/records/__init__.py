"""What is told of a run: its result, to trackers, and on the model card."""
