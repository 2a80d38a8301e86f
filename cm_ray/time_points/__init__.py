"""Search for the time points of multistep sampling. Needs no device, no cluster and no files.

A candidate is an index i of the ascending Karras grid, 0 .. N - 1; it stands for the time t_i. The caller
gives the search a scorer, which samples and scores a batch of candidates at a time.

==================  ===================================================================================
`integer_search`    search with exact scores: ternary, Fibonacci, sections, exhaustive
`greedy`            several points: place one at a time between its neighbours, then refine in passes
`sample_budget`     noisy scores: which samples each candidate has, paired by noise, and what they cost
`race`              find the best of several candidates with as few samples as possible
`racing`            search with noisy scores by races, or with the full budget for every candidate
`surrogate`         Gaussian process through all scores, with its uncertainty
`smooth`            search with noisy scores by this smooth curve (the default)
`noisy_search`      `find_points`: several points with noisy scores; callers start here
`simulated`         simulated noisy curves with published shapes, to test a search
`openai_indices`    conversion from and to OpenAI's ``--ts 0,22,39 --steps 40``
==================  ===================================================================================

A new search method, or a new way to spend samples on noisy scores, is a file here. Sampling and scoring
candidates on a cluster belongs to `cm_ray.cluster.time_points`, the report to `cm_ray.reports`.
"""
