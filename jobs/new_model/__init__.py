"""`run-batch new-model`: a model of one's own, to begin from."""
