"""The learner: merges samples into outer updates of theta, a vector whose task it does not know. Imports `common` only."""
