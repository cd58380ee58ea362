"""From a trained model to answers: the task, the search, the predictor and the bundle that holds them."""
