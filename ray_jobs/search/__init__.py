"""The search over architectures and settings: plan, samplers, trials, early stopping, finals.

Only `tune` and `demo` use this package.
"""
