"""What runs inside an image or beside the user's desk: prepare, work, reduce, refit."""
