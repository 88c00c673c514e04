"""The engine: one module per job, run as `genre <job>`. The only package that imports Ray."""
