"""From a PyTorch module to a ``Model``, and the trained arrays back into the module."""

from edgekit.frontends.torch.capture import capture
from edgekit.frontends.torch.export import Loss
from edgekit.frontends.torch.write_back import write_back

__all__ = ["Loss", "capture", "write_back"]
