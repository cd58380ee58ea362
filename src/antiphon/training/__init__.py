"""Learning: from batches of pairs to the best weights, resumable to the bit."""
