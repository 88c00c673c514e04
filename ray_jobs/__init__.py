"""The engine: one module per job, run as `python -m ray_jobs.<job>`. The only package that imports Ray."""
