"""The search over architectures and settings, used by the jobs `tune` and `demo` alone.

Input: the configuration and the training data. Output: the models of the winners in OUTPUT/models, and the facts of the
search for the report. Uses no clips or labels of the test split.

    plan         what is trained             budget       how long a plan takes, and which one fits into the time
    timing       cost of a step              decision     the plan that a search follows, stored for resumption
    space        settings that vary          samplers     chooses the settings of trials
    slots        the numbered trials         trial_folder the input and the files of one trial
    trial        trains one configuration    distributed  several processes of one trial
    resources    CPUs and GPUs of a trial    stopper      early stopping and the time limit
    runner       runs trials with Ray Tune   finals       the models of the winners
    results      winners and failures        tracking     MLflow
    progress     progress on the terminal    judged       whether it was judged before
    exits        why a process died
"""
