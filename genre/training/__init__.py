"""Train a network on the clips of a features folder.

Input: clips with labels, and the settings of `train`. Output: a saved model with the weights of the best epoch, and the
history of the training. Without labels (`contrastive`, `pretraining`) the output is a body to start a training from.
Independent of Ray: a job passes the rank of its process and a wrapper that averages gradients.
"""
