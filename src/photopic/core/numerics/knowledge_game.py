"""The game of knowledge extrapolation on samples: its solution, its value and its discriminator, all in closed form.

    maximise over q:  J(q) = E_q[k] - strength * KL(q || p)      solved by  q*(x) = p(x) exp(k(x) / strength) / Z

Our formulation, after *Principled Knowledge Extrapolation with GANs* (ICML 2022, arXiv:2205.13444), of which only the abstract is
public.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logsumexp


def extrapolated(
    density: Float[np.ndarray, " points"], knowledge: Float[np.ndarray, " points"], strength: float
) -> tuple[Float[np.ndarray, " points"], float]:
    """q* on the same points, and log Z; the value of the game is ``strength * log Z``.

    Args:
        density: p, above 0, of sum 1.
        knowledge: k of each point.
        strength: lambda, above 0: large keeps q near p.

    Example:
        >>> q, log_z = extrapolated(np.array([0.5, 0.5]), np.array([0.0, 1.0]), 1.0)
        >>> (q[1] / q[0]).round(3).item()
        2.718
    """
    logs = np.log(density) + knowledge / strength
    log_z = float(logsumexp(logs))
    return np.exp(logs - log_z), log_z


def discriminator(
    knowledge: Float[np.ndarray, " points"], strength: float, log_z: float
) -> Float[np.ndarray, " points"]:
    """p / (p + q*) = sigmoid(log Z - k / strength): the best discriminator knows nothing but the knowledge, and is not trained.

    Example:
        >>> discriminator(np.zeros(1), 1.0, 0.0)
        array([0.5])
    """
    found: np.ndarray = expit(log_z - knowledge / strength)
    return found
