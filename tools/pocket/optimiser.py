"""Two optimisers in one: Muon for the matrices, Adam for the embedding and the norms."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonal(stack: Tensor, steps: int = 4) -> Tensor:
    """Return the nearest orthogonal matrix to each of a stack, by Newton-Schulz steps."""
    a, b, c = COEFFICIENTS
    tall = stack.shape[-2] > stack.shape[-1]
    x = stack.mT if tall else stack
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Optimiser:
    """Holds the momenta of a model's parameters; the rate is given at every step."""

    def __init__(
        self, model: nn.Module, matrix_rate: float = 0.02, other_rate: float = 0.003
    ) -> None:
        named = dict(model.named_parameters())
        self.matrices = {n: p for n, p in named.items() if p.ndim == 2 and "embed" not in n}
        others = [p for n, p in named.items() if n not in self.matrices]
        self.momenta = {n: torch.zeros_like(p) for n, p in self.matrices.items()}
        self.adam = torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.matrix_rate, self.other_rate = matrix_rate, other_rate

    @torch.no_grad()
    def step(self, share: float, decay: float = 0.02) -> None:
        """Change the parameters at `share` of the full rate, and clear the gradients."""
        for group in self.adam.param_groups:
            group["lr"] = self.other_rate * share
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        rate = self.matrix_rate * share
        by_shape: dict[torch.Size, list[str]] = defaultdict(list)
        for name, matrix in self.matrices.items():
            by_shape[matrix.shape].append(name)
        for shape, names in by_shape.items():
            self._move(names, rate * max(1.0, shape[0] / shape[1]) ** 0.5, rate * decay)

    def _move(self, names: list[str], rate: float, decay: float) -> None:
        updates = []
        for name in names:
            gradient, momentum = self.matrices[name].grad, self.momenta[name]
            momentum.lerp_(gradient, 1 - MOMENTUM)
            updates.append(gradient.lerp(momentum, MOMENTUM))
        for name, update in zip(names, orthogonal(torch.stack(updates)), strict=True):
            self.matrices[name].mul_(1 - decay).sub_(update, alpha=rate)
            self.matrices[name].grad = None

    def state(self) -> dict[str, object]:
        """Return what a checkpoint keeps."""
        return {"momenta": self.momenta, "adam": self.adam.state_dict()}

    def load(self, state: dict[str, object]) -> None:
        """Take back what a checkpoint kept."""
        self.momenta = state["momenta"]
        self.adam.load_state_dict(state["adam"])
