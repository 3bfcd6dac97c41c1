"""Fine-tune a causal language model into a generative recommender over semantic IDs."""

__version__ = "0.1.0"
