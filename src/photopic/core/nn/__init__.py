"""Networks from outside: hooks, attention, gradients, Jacobians and the outputs of layers."""
