"""What `import outertrain` offers: loading a learned optimizer, and the commands `train` and `evaluate` as functions."""
