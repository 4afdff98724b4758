"""Maps input rows to what the engine takes, batch by batch, in a pool of worker processes."""
