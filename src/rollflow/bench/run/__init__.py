"""Running an experiment: its definition, its folder and its journal."""
