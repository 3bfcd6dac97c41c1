"""What is told of a run elsewhere: to trackers, and on the model card."""
