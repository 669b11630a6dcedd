"""The second phase, execution: requests are evaluated by models, decoders and rewards."""
