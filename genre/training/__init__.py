"""From a features folder to a trained and saved model.

Enters: clips with labels, and the `train` settings. Leaves: weights of the best epoch with their history.
Knows nothing of Ray: the engine passes a shard and a wrapper for several processes.
"""
