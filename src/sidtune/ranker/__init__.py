"""The ranker: candidates of several sources, put in order by what all of them say."""
