"""The page, its JSON API and the metrics: what a stream does, for people and for machines (extra `web`)."""
