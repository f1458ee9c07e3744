"""The folder that a build writes, and its readers: verify, load, shards, replay, decrypt."""
