"""What people see of a pipe: its status as values, its log lines, its live view. Knows nothing of how a pipe works."""
