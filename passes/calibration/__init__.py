"""What calibration inputs tell: second moments of activations, and how far outputs are apart."""
