"""The contract between the desk and the image: specs, plans, the store, and what is said between processes."""
