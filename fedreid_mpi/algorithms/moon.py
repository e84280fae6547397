"""MOON: a client's features are held near the global model's, and away from those of its last local model.

Source: Li, He and Song, "Model-Contrastive Federated Learning", CVPR 2021, equation 3.
"""

from torch import Tensor
from torch.nn import functional as F

PREVIOUS = "previous_model"
"""Under what name a client remembers its last local model: the shared part, as one vector."""


def contrastive_loss(features: Tensor, of_global: Tensor, of_previous: Tensor, temperature: float) -> Tensor:
    """Return the model-contrastive loss of a batch, a mean over its images.

    With sim the cosine, it is -ln(e^(sim(z, z_g)/τ) / (e^(sim(z, z_g)/τ) + e^(sim(z, z_p)/τ))), which is
    ln(1 + e^((sim(z, z_p) - sim(z, z_g))/τ)). Where both models say the same it is ln 2, with no gradient.

    Parameters
    ----------
    features
        z, of the model that is trained: shape (B, width), float32.
    of_global, of_previous
        z_g and z_p, of the model that the round began with, and of the client's last one; of that shape.
    temperature
        τ, greater than 0.

    Returns
    -------
    Tensor
        Shape (), float32.
    """
    towards = F.normalize(of_previous) - F.normalize(of_global)
    return F.softplus((F.normalize(features) * towards).sum(1) / temperature).mean()
