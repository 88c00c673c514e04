"""Training a network on the clips of a features folder.

Enters: clips with labels, and the settings of `train`. Leaves: a saved model with the weights of the best epoch and
the history of the training. The room knows nothing of Ray: a job passes the shard of its process and a wrapper that
averages gradients.
"""
