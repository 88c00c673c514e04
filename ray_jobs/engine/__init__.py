"""What the jobs share.

Input: arguments of the command line, settings, and functions of `genre` to run. Output: connections to Ray, results of
tasks, and text on the terminal. Independent of all other rooms of `ray_jobs` and of each job.

    command, cli, jobs, help_pages        the command line
    printing, progress, reporter          output on the terminal, also from workers
    interrupts                            the end of a job by a signal
    cluster, head, reach                  connection to Ray, and checks that all machines can work
    machines, capacity                    the machines of a cluster, and how much of it a job may use
    blocks, tasks, metrics                work on many tracks, and waiting for it
    models, forecast                      the model of a job; --dry-run of `prepare` and `tag`
    training                              the workers of `train` and `pretrain`
"""
