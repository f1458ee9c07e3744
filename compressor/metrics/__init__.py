"""What a network is worth: evaluations, metrics and their directions, the search for a drop."""
