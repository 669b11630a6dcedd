"""The environment of a running process: signals, forks, devices and calls of foreign code."""
