"""Files that survive a crash: durable writes, atomic replacement, manifests, keys."""
