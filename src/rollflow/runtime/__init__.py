"""The process that rollflow runs in: signals, forks, devices and calls of other people's code."""
