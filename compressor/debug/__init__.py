"""`compressor reduce`: the smallest recipe and network that still fail in the same way."""
