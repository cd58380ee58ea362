"""What every layer shares: errors, the configuration, and the types that flow from pair to loss."""
