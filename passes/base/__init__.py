"""What everything else stands on: errors, threads, log messages of libraries, text that is safe to
show, and delta debugging."""
