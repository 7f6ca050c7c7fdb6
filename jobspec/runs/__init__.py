"""A run in the store: rounds, the logs of tasks, rows, and how far it is."""
