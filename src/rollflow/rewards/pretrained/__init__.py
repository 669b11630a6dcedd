"""What rewards of pretrained networks share: loading, preprocessing, caches of texts."""
