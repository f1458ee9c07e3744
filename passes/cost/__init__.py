"""What a plan costs: multiply-accumulates, parameters, bytes, time."""
