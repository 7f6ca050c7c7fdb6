"""Working on tasks: a parent that never fits, and workers that do."""
