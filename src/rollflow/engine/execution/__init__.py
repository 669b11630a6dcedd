"""The second phase, execution: models, decoders and rewards evaluate the requests."""
