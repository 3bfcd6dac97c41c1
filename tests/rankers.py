"""Names of the rankers in the tables of an evaluation."""

SIMPLE = ("most popular", "repeat last", "repeat often", "co-occurrence", "transitions")
# Where the items have texts.
BASELINES = (*SIMPLE, "text neighbours", "transitions and text")
