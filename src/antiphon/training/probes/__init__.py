"""What is measured of a model while it trains, for whoever asks later why it learned as it did; it changes nothing."""
