"""The branches of a `Adapters` as functions, for whoever trains them: the same forward as that of the edit.

A branch is added to what a module puts out; `attached` puts branches on a live network and takes them away again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from photopic.core.editfile.placement import AdapterPlacement
from photopic.core.edits.adapter_hooks import attention, branch_hooks, branch_output
from photopic.core.edits.runtime import with_names

__all__ = ["AdapterPlacement", "attached", "attention", "branch_output"]


@contextmanager
def attached(
    network: nn.Module,
    branches: Mapping[str, AdapterPlacement],
    tensors: Mapping[str, Tensor],
    *,
    component: str = "network",
) -> Iterator[None]:
    """Branches on a network inside a ``with`` block; gradients flow to their tensors.

    Args:
        network: Whose modules get branches.
        branches: By module, named ``<component>.<module name>``.
        tensors: ``<component>.<module name>/<role>`` to tensor.
        component: What names call the network.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Identity())
        >>> up = torch.ones(1, 2, requires_grad=True)
        >>> tensors = {"network.0/down": torch.ones(2, 1), "network.0/up": up}
        >>> with attached(net, {"network.0": AdapterPlacement("adapter", "none", "identity")}, tensors):
        ...     net(torch.ones(1, 1)).item()
        3.0
    """

    def module_of(name: str) -> nn.Module:
        return network.get_submodule(name.removeprefix(component).removeprefix("."))

    with ExitStack() as stack:
        for name, hook in branch_hooks(branches, tensors, lambda _: 1.0, module_of):
            stack.callback(module_of(name).register_forward_hook(with_names(hook), with_kwargs=True).remove)
        yield
