"""From a shop's own tables to recommendations: what each stage leaves, the next one finds."""
