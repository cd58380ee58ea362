"""The search for better settings than those of the recipe."""
