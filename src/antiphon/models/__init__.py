"""The networks: frontends, encoders, attention, decoders and heads, any of each with any other."""
