"""Which channels stand or fall together: labels go through the graph; axes that meet are groups."""
