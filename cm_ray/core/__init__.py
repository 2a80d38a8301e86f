"""The mathematics of consistency models in PyTorch, without files, devices, state and Ray.

Notation, the same in every file of the project:

==========================  ==============================  =============================================
paper                       code                            meaning
==========================  ==============================  =============================================
t, sigma(t) = t             ``t``                           noise standard deviation
t_{n+1} > t_n               ``t``, ``s``                    noisier and cleaner time of a pair, (b,)
x, z                        ``x``, ``noise``                clean images in [-1, 1] (b, c, h, w); normal
x_{t_{n+1}}, x_{t_n}        ``x_t``, ``x_s``                the pair on one trajectory (b, c, h, w)
f_theta, f_theta-, phi      ``student, target, teacher``
F_theta                     ``network``                     the raw network under the preconditioning
epsilon, T                  ``t_min`` = 0.002, ``t_max`` = 80
d, lambda                   ``distance``, ``weight``
N(k), mu(k)                 ``num_scales(step)``, ``target_decay(step)``
tau_1 > tau_2 > ...         ``taus``                        time points of multistep sampling
==========================  ==============================  =============================================

Time grids ascend as in the paper: ``karras_times(n)[0] == t_min`` and ``[-1] == t_max``.
"""
