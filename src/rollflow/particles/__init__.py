"""What a population is made of: labelled noise, importance weights and resampling."""
