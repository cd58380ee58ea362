"""From raw pairs to batches of ids: reading, checking, tokenizing, storing, batching."""
