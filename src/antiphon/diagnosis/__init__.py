"""What is wrong, with how much certainty, what it costs and how to mend it: of the data, before anything is trained."""
