"""Reports of experiments: pages, tables, figures and citations."""
