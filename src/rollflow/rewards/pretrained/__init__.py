"""The common parts of rewards by pretrained networks: loading, preprocessing and a cache of texts."""
