"""The HTTP server: requests at the edge, batches of them in the middle, decoding processes behind."""
