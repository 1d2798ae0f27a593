"""The Neural Turing Machine's loop over time with its backward pass written by hand.

`attn.ntm` defines the machine: `NTM.step` says what happens in one time step, and autograd could differentiate a
loop over it. This package computes the same numbers and gradients, to rounding, in about half the time:

- One `torch.autograd.Function` spans the whole sequence, so no operation is recorded, and what the
  steps fill is allocated once.
- The memory lies transposed, [B, D, N]: sums over a slot's D values and products with a weighting then run along
  the N slots, which lie side by side.
- Whatever does not depend on later time steps leaves the loop: the derivatives of all non-linearities are computed
  for all steps at once before the backward loop, and the gradient of each weight matrix is one product after it.

Each part has its forward and its backward pass side by side, in the order of a time step: controller, heads,
content, location, write, read. Shapes are those of `attn.ntm`; P is the number of values that all heads emit. A named
tuple of tensors with a leading dimension of time describes a sequence; `rows` turns it into one tuple a step, with the
same names. In a backward pass, `grad` stands for the gradient of the loss, and `grad.key` for that of the keys.
"""
