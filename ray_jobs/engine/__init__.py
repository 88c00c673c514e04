"""What the jobs share: the command line, the cluster, work in blocks, progress, metrics."""
