"""What a state machine starts in a container to plan a run: it reads and writes the store, and nothing else."""
