"""How tiny-klein is made: a procedural data set with a known truth, training and evaluation."""
