"""Search spaces for hyperparameter sweeps: one file for each question.   python jobs/sweep.py NAME

==================  ===================================================================================
`cd_metric`         figure 3 a of Song et al. 2023: distances of consistency distillation
`cd_solver`         figure 3 b: Euler's or Heun's step of the teacher
`cd_num_scales`     figure 3 c: the number of scales N
`ct_schedule`       figure 3 d: schedules N(k) and mu(k) of consistency training, or constants
`cd_all`, `ct_all`  all choices of distillation and of training at once
`ict`               the choices of improved consistency training
`fast_and_good`     two objectives: score and training cost
`digits_*`          the same on the embedded 8x8 digits: minutes on two cores
==================  ===================================================================================

Your own space is a file like these, in any folder: ``python jobs/sweep.py my_space.py``.
"""
