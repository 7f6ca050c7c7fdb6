"""What a search consists of: candidates, what is known of the data, ids, and the packing into tasks."""
