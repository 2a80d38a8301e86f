"""Search for the time points of multistep sampling, and for settings: no device and no cluster.

Time points: a candidate is an index i of the ascending Karras grid, 0 .. N - 1, that is, a time point t_i
between its neighbours.

==================  ===================================================================================
`integers`          ternary, fibonacci, sections, exhaustive search; exact scores
`greedy`            several points: one at a time between its neighbours, then refinement sweeps
`effort`            noisy scores: who samples what, paired by the same noise, and how much was spent
`race`              the better one of several candidates, with no more samples than that takes
`surrogate`         a smooth curve through all scores, with its uncertainty
`adaptive`          searches over noisy scores by races, or with the whole budget for every evaluation
`smooth`            the search over noisy scores by the smooth curve: the default
`noisy`             `find_points`, several points by noisy scores; where a driver begins
`simulated`         noisy curves of the published shapes, to try a search on
`openai_indices`    ``--ts 0,22,39 --steps 40``, there and back
==================  ===================================================================================

Who drives a search brings the scores: a callback that gets a batch of candidates and may measure all at
once.

Settings: trials of a study, chosen by Optuna.

==================  ===================================================================================
`space`             what may be changed, as data, held against the config's types and rules
`spaces`            finds them by name: search_spaces/, or anybody's file
`study`             where trials are kept, who chooses the next, what became of them
`sweep_report`      what was found, and how sure it is; `sweep_pictures`, drawn
==================  ===================================================================================
"""
