"""From a release to a training job: locks that pin a training set, splits that never move, feeds that read it."""
