"""Source files to arrays, arrays to folds that every process of a host maps."""
