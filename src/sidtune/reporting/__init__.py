"""A run as one HTML file: what it was trained on, how training went, and what it ranks."""
