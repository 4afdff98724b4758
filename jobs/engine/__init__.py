"""vLLM's engine, its restarts after a death or a hang, and the search for rows that kill it."""
