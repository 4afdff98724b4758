"""run-batch ray: the shares of a job as tasks of a Ray cluster."""
