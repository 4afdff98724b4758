"""What people see of a job: progress, metrics, status, report."""
