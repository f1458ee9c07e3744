"""After the surgery: weights are fitted to what the original gives, layer by layer."""
