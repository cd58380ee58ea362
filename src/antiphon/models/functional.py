"""The mathematics that decides the speed, each piece beside nothing but its definition; parity is in the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from antiphon.core.batch import PAD
from antiphon.models.linear import blocks, chunks, whole


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """Dropout whose mask costs one random byte an element, many times cheaper on a CPU than `F.dropout`.

    The share is rounded to 1/256, and the rest is scaled by exactly what is kept.
    """
    if torch.compiler.is_compiling():
        return F.dropout(x, share, training)
    return x * kept(x, share) if training and round(share * 256) else x


def add_dropout(x: Tensor, y: Tensor, share: float, training: bool) -> Tensor:
    """x + dropout(y), in one pass."""
    if torch.compiler.is_compiling() or not training or not round(share * 256):
        return x + dropout(y, share, training)
    return torch.addcmul(x, y, kept(y, share))


class _ReluDropout(torch.autograd.Function):
    """The result alone says where the gradient goes on: what either of the two made zero has none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float) -> Tensor:
        ctx.scale = 256 / (256 - min(255, round(share * 256)))
        y = kept(x, share).mul_(x).relu_()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, y, 0).mul_(ctx.scale), None


def relu_dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """dropout(relu(x)), which keeps one tensor for its gradient where the two by themselves keep three."""
    if not training or not round(share * 256) or torch.compiler.is_compiling():
        return dropout(F.relu(x), share, training)
    return _ReluDropout.apply(x, share)


def kept(x: Tensor, share: float) -> Tensor:
    """A dropout mask like x: 0 with the chance `share`, else what keeps the mean."""
    threshold = min(255, round(share * 256))
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    mask = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    # Compared straight into floats: by way of booleans it takes ten times as long.
    torch.ge(words.view(torch.uint8)[: x.numel()].view(x.shape), threshold, out=mask)
    return mask.mul_(256 / (256 - threshold))


class _SplitHeads(torch.autograd.Function):
    """One copy each way; by views it is one for each part, and more for the gradients."""

    @staticmethod
    def forward(ctx: Any, x_BTX: Tensor, heads: int, parts: int) -> tuple[Tensor, ...]:
        rows, length, width = x_BTX.shape
        ctx.dtype, ctx.shape = x_BTX.dtype, (rows, length, parts, heads, width // (parts * heads))
        result = x_BTX.new_empty(parts, rows, heads, length, width // (parts * heads), dtype=of_heads(x_BTX))
        return result.copy_(x_BTX.view(ctx.shape).permute(2, 0, 3, 1, 4)).unbind(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x_BTPHD = gradients[0].new_empty(ctx.shape, dtype=ctx.dtype)
        for number, part in enumerate(gradients):
            x_BTPHD[:, :, number] = part.transpose(1, 2)
        return x_BTPHD.flatten(2), None, None


def of_heads(x: Tensor) -> torch.dtype:
    """What is computed in within a head: on a CPU fp32 at least, for short rows are slow there in bf16."""
    return torch.promote_types(x.dtype, torch.float32) if x.device.type == "cpu" else x.dtype


def split_heads(x_BTX: Tensor, heads: int, parts: int) -> tuple[Tensor, ...]:
    """`[B, T, parts * D]` as `parts` tensors `[B, H, T, D/H]`."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _SplitHeads.apply(x_BTX, heads, parts)
    return split_heads_plainly(x_BTX, heads, parts)


def split_heads_plainly(x_BTX: Tensor, heads: int, parts: int) -> tuple[Tensor, ...]:
    """The plain version of `split_heads`."""
    rows, length, width = x_BTX.shape
    x_BTX = x_BTX.to(of_heads(x_BTX))
    return x_BTX.view(rows, length, parts, heads, width // (parts * heads)).permute(2, 0, 3, 1, 4).unbind(0)


class _JoinHeads(torch.autograd.Function):
    """The inverse of `_SplitHeads` for one part."""

    @staticmethod
    def forward(ctx: Any, x_BHTD: Tensor, dtype: torch.dtype) -> Tensor:
        rows, heads, length, width = ctx.shape = x_BHTD.shape
        ctx.dtype = x_BHTD.dtype
        return x_BHTD.new_empty(rows, length, heads, width, dtype=dtype).copy_(x_BHTD.transpose(1, 2)).flatten(2)

    @staticmethod
    def backward(ctx: Any, gradient_BTX: Tensor) -> tuple[Tensor, None]:
        rows, heads, length, width = ctx.shape
        x_BHTD = gradient_BTX.new_empty(ctx.shape, dtype=ctx.dtype)
        return x_BHTD.copy_(gradient_BTX.view(rows, length, heads, width).transpose(1, 2)), None


def join_heads(x_BHTD: Tensor, dtype: torch.dtype) -> Tensor:
    """`[B, H, T, D/H]` as `[B, T, D]`."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _JoinHeads.apply(x_BHTD, dtype)
    return x_BHTD.transpose(1, 2).flatten(2).to(dtype)


def softmax_(scores: Tensor) -> Tensor:
    """Softmax over the last axis in place. PyTorch's own is ten times slower on rows that do not fill a register of a
    CPU."""
    if scores.shape[-1] >= 16 or scores.device.type != "cpu":
        return torch._softmax(scores, scores.dim() - 1, False, out=scores)
    scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    return scores.div_(scores.sum(-1, keepdim=True))


def through_softmax_(gradient: Tensor, chances: Tensor) -> Tensor:
    """The gradient of a softmax over the last axis, in place."""
    if chances.shape[-1] >= 16 or chances.device.type != "cpu":
        return torch._softmax_backward_data(gradient, chances, chances.dim() - 1, chances.dtype, grad_input=gradient)
    gradient.mul_(chances)
    return gradient.addcmul_(chances, gradient.sum(-1, keepdim=True), value=-1)


class _Attend(torch.autograd.Function):
    """Scores, softmax and their gradients in one buffer each."""

    @staticmethod
    def forward(
        ctx: Any, query_BHTD: Tensor, keys_BHSD: Tensor, values_BHSD: Tensor, added: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.scale = query_BHTD.shape[3] ** -0.5
        weights = _weights(query_BHTD, keys_BHSD, added)
        seen = weights if mask is None else weights * mask
        ctx.save_for_backward(query_BHTD, keys_BHSD, values_BHSD, added, mask, weights, seen)
        return seen @ values_BHSD, weights

    @staticmethod
    def backward(ctx: Any, context: Tensor | None, looks: Tensor | None) -> tuple[Tensor | None, ...]:
        query, keys, values, added, mask, weights, seen = ctx.saved_tensors
        context = torch.zeros_like(query) if context is None else context.contiguous()
        for_values = seen.transpose(2, 3) @ context
        slope = context @ values.transpose(2, 3)
        if mask is not None:
            slope *= mask
        if looks is not None:
            slope += looks
        slope = through_softmax_(slope, weights)
        for_added = slope.sum_to_size(added.shape) if added is not None and ctx.needs_input_grad[3] else None
        # Not in place where the gradient of what was added may be the same tensor.
        slope = slope.mul_(ctx.scale) if for_added is None else slope * ctx.scale
        return slope @ keys, slope.transpose(2, 3) @ query, for_values, for_added, None


def _weights(query_BHTD: Tensor, keys_BHSD: Tensor, added: Tensor | None) -> Tensor:
    scores = (query_BHTD @ keys_BHSD.transpose(2, 3)).mul_(query_BHTD.shape[3] ** -0.5)
    if added is not None:
        scores += added
    return softmax_(scores)


def attend(
    query_BHTD: Tensor, keys_BHSD: Tensor, values_BHSD: Tensor, added: Tensor | None, share: float, training: bool
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention (Vaswani et al. 2017): context `[B, H, T, D]`, and weights `[B, H, T, S]`.

    `added` is broadcast onto the scores: a bias, `hide` of what must not be looked at, or both. Dropout drops weights.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        mask = None
        if training and round(share * 256):
            mask = kept(query_BHTD.new_empty(*query_BHTD.shape[:3], keys_BHSD.shape[2]), share)
        return _Attend.apply(query_BHTD, keys_BHSD, values_BHSD, added, mask)
    if not torch.compiler.is_compiling() and not training:
        weights = _weights(query_BHTD, keys_BHSD, added)
        return weights @ values_BHSD, weights
    return attend_plainly(query_BHTD, keys_BHSD, values_BHSD, added, share, training)


def attend_unseen(
    query_BHTD: Tensor, keys_BHSD: Tensor, values_BHSD: Tensor, added: Tensor | None, share: float, training: bool
) -> Tensor:
    """The context of `attend` where nobody asks for the weights: on a GPU they are never written to memory (Dao et al.
    2022)."""
    if query_BHTD.device.type == "cpu":
        return attend(query_BHTD, keys_BHSD, values_BHSD, added, share, training)[0]
    return attend_fused(query_BHTD, keys_BHSD, values_BHSD, added, share, training)


def attend_fused(
    query_BHTD: Tensor, keys_BHSD: Tensor, values_BHSD: Tensor, added: Tensor | None, share: float, training: bool
) -> Tensor:
    """PyTorch's kernel; on a CPU it is slower than ours."""
    dropout_p = share if training else 0.0
    added = None if added is None else added.to(query_BHTD.dtype)
    return F.scaled_dot_product_attention(query_BHTD, keys_BHSD, values_BHSD, added, dropout_p)


def attend_plainly(
    query_BHTD: Tensor, keys_BHSD: Tensor, values_BHSD: Tensor, added: Tensor | None, share: float, training: bool
) -> tuple[Tensor, Tensor]:
    """The plain version of `attend`."""
    scores = (query_BHTD * query_BHTD.shape[3] ** -0.5) @ keys_BHSD.transpose(2, 3)
    weights = (scores if added is None else scores + added).softmax(3)
    return dropout(weights, share, training) @ values_BHSD, weights


def hide(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """What `attend` adds to the scores: 0 where a query may look, else the lowest float, so that the weight is 0."""
    hidden = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return hidden.masked_fill_(~visible, torch.finfo(dtype).min)


class _Reverse(torch.autograd.Function):
    """Row permutation that is its own inverse, so its gradient is the same gather and never a scatter."""

    @staticmethod
    def forward(ctx: Any, x_BSD: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return x_BSD.reshape(-1, x_BSD.shape[2]).index_select(0, index).view(x_BSD.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return gradient.reshape(-1, gradient.shape[2]).index_select(0, index).view(gradient.shape), None


def reverse(x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
    """Each sequence back to front within its own length; padding stays where it is."""
    rows, length = mask_BS.shape
    position = torch.arange(length, device=x_BSD.device)
    last = mask_BS.sum(1, keepdim=True) - 1
    index = torch.where(mask_BS, last - position, position) + length * torch.arange(rows, device=x_BSD.device)[:, None]
    if torch.compiler.is_compiling():
        return x_BSD.reshape(-1, x_BSD.shape[2]).index_select(0, index.flatten()).view(x_BSD.shape)
    return _Reverse.apply(x_BSD, index.flatten())


def scan(forget_BTD: Tensor, input_BTD: Tensor, start_BD: Tensor) -> Tensor:
    """All states of c_t = forget_t * c_{t-1} + input_t: one pass on a CPU, log2(T) parallel ones on a GPU."""
    if forget_BTD.device.type != "cpu" or torch.compiler.is_compiling():
        return _parallel_scan(forget_BTD, input_BTD, start_BD)
    states: Tensor = _Scan.apply(forget_BTD, input_BTD, start_BD)
    return states


class _Scan(torch.autograd.Function):
    """The recurrence as it is written, in fp32; its gradient is the same one from the last step to the first."""

    @staticmethod
    def forward(ctx: Any, forget_BTD: Tensor, input_BTD: Tensor, start_BD: Tensor) -> Tensor:
        before_BD = start_BD.to(torch.promote_types(start_BD.dtype, torch.float32))
        states_BTD = torch.empty_like(input_BTD, dtype=before_BD.dtype)
        for step in range(input_BTD.shape[1]):
            before_BD = torch.addcmul(input_BTD[:, step], forget_BTD[:, step], before_BD, out=states_BTD[:, step])
        ctx.save_for_backward(forget_BTD, states_BTD, start_BD)
        return states_BTD.to(start_BD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        forget_BTD, states_BTD, start_BD = ctx.saved_tensors
        total_BTD, onward_BD = torch.empty_like(states_BTD), torch.zeros_like(states_BTD[:, 0])
        for step in reversed(range(states_BTD.shape[1])):
            total_BD = torch.add(slope_BTD[:, step], onward_BD, out=total_BTD[:, step])
            onward_BD = total_BD * forget_BTD[:, step]
        to_forget_BTD = torch.empty_like(states_BTD)
        torch.mul(total_BTD[:, :1], start_BD[:, None], out=to_forget_BTD[:, :1])
        torch.mul(total_BTD[:, 1:], states_BTD[:, :-1], out=to_forget_BTD[:, 1:])
        return to_forget_BTD, total_BTD, onward_BD


def _parallel_scan(forget_BTD: Tensor, input_BTD: Tensor, start_BD: Tensor) -> Tensor:
    """The same by doubling (Hillis and Steele 1986)."""
    first = input_BTD[:, :1] + forget_BTD[:, :1] * start_BD[:, None]
    state = torch.cat([first, input_BTD[:, 1:]], dim=1)
    decay, reach = forget_BTD, 1
    while reach < state.shape[1]:
        tail = state[:, reach:] + decay[:, reach:] * state[:, :-reach]
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], dim=1)
        state, reach = torch.cat([state[:, :reach], tail], dim=1), reach * 2
    return state


class _LinearCrossEntropy(torch.autograd.Function):
    """Projection, softmax and cross-entropy by chunks of rows, the gradient made while the probabilities are in cache.

    Chunks share one buffer: a fresh one of this size costs more in page faults than the mathematics done in it.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, labels_N: Tensor, smoothing: float, rows: int
    ) -> Tensor:
        count, size = len(labels_N), len(weight_VD)
        exact, share = torch.promote_types(hidden_ND.dtype, torch.float32), smoothing / size
        wanted = any(ctx.needs_input_grad)
        sizes = chunks(hidden_ND, rows)
        buffer = hidden_ND.new_empty(sizes[0], size)
        hidden_gradient = torch.empty_like(hidden_ND)
        weight_gradient, bias_gradient = torch.zeros_like(weight_VD), torch.zeros_like(bias_V, dtype=exact)
        total = hidden_ND.new_zeros((), dtype=exact)
        for part in blocks(count, sizes):
            hidden, labels = whole(hidden_ND[part], sizes[-1]), labels_N[part]
            each = torch.arange(len(labels), device=labels.device), labels
            logits = torch.mm(hidden, weight_VD.T, out=buffer[: len(hidden)]).add_(bias_V)
            right = logits[each].to(exact)
            chances = torch._softmax(logits, 1, False, out=logits)
            logs = label_logs(chances[each].to(exact), right, hidden, weight_VD, bias_V)
            total -= (1 - smoothing) * logs.sum() - smoothing * (right - logs).sum()
            if wanted:
                chances[len(labels) :] = 0
                chances.index_put_(each, chances.new_tensor(smoothing - 1), accumulate=True)
                hidden_gradient[part] = (chances @ weight_VD)[: len(labels)]
                weight_gradient.addmm_(chances.T, hidden)
                bias_gradient += chances.sum(0)
        if smoothing:
            # What is uniform over the vocabulary needs no pass over the logits: it is a product of sums.
            hidden_D, weight_D = hidden_ND.sum(0, dtype=exact), weight_VD.sum(0, dtype=exact)
            total -= share * (hidden_D @ weight_D + count * bias_V.sum(dtype=exact))
            hidden_gradient -= (share * weight_D).to(hidden_gradient.dtype)
            weight_gradient -= (share * hidden_D).to(weight_gradient.dtype)
            bias_gradient -= share * count
        ctx.save_for_backward(hidden_gradient, weight_gradient, bias_gradient)
        ctx.dtype = hidden_ND.dtype
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *((part * gradient).to(ctx.dtype) for part in ctx.saved_tensors), None, None, None


def label_logs(chances_N: Tensor, right_N: Tensor, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor) -> Tensor:
    """Logarithms of the labels' probabilities, made from the logits where a probability is too small for a float."""
    tiny = (chances_N < 1e-30).nonzero().squeeze(1)
    logs = chances_N.log()
    if len(tiny):
        logs[tiny] = right_N[tiny] - F.linear(hidden_ND[tiny], weight_VD, bias_V).to(logs.dtype).logsumexp(1)
    return logs


def linear_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, labels_N: Tensor, *, smoothing: float = 0.0, rows: int = 512
) -> Tensor:
    """Sum over rows of the cross-entropy of softmax(hidden @ weight.T + bias), label smoothing uniform over V.

    Never holds more than `rows` x V logits. Rows must be real tokens; padding is left out beforehand.
    """
    return _LinearCrossEntropy.apply(hidden_ND, weight_VD, bias_V, labels_N, smoothing, rows)


def real_rows(labels_BT: Tensor) -> Tensor:
    """Flat indices of the labels that are not padding."""
    return (labels_BT.flatten() != PAD).nonzero().squeeze(1)


def activation(kind: str) -> Callable[[Tensor], Tensor]:
    """The named pointwise function; `swiglu` gates inside `FeedForward`, so here it is SiLU."""
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": F.relu,
        "leaky_relu": F.leaky_relu,
        "gelu": F.gelu,
        "tanh": torch.tanh,
        "swiglu": F.silu,
    }
    return kinds[kind]
