"""Evidence for what the library predicts: simulations that share no formula with it, and the verdict on both."""
