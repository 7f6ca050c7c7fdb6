"""Who starts the processes of a run."""
