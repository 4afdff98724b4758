"""Bytes in, bytes out: rows of data sets, encoded images, shards of results. Knows nothing of models or jobs."""
