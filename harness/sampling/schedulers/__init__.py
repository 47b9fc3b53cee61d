"""ODE solvers that diffusers does not have, with the interface of its schedulers."""
