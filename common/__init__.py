"""What learner, workers and cluster share: pure functions and records, no processes.

Letters used everywhere:

    theta [P]  outer-parameters, one flat float32 vector
    w          inner-parameters, a pytree of N numbers in all
    T          inner steps of one truncation, its *window*
    S          antithetic pairs of one sample, one from each of a worker's trajectories
    B          inner batch
    sigma      standard deviation of the perturbation of theta

Words: an *inner problem* is one task, one w, up to `inner_steps` steps; a *trajectory* is an inner problem that is
advanced truncation by truncation; the *version* counts outer updates of theta; the *epoch* counts incarnations
of the learner; the *staleness* of a sample is the learner's version minus the version it was computed with.

`common` imports none of the other packages.
"""
