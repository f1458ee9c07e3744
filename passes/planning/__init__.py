"""From a budget to a plan: targets, options, and the choice of channels."""
