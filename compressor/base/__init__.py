"""What everything else stands on: messages, optional packages, what comes from outside, memory."""
