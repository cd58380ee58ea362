"""Export: the same model for engines that answer faster than PyTorch."""
