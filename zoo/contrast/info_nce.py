"""Supervised InfoNCE with several positives a query."""

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(
    queries: Tensor,
    query_labels: Tensor,
    query_valid: Tensor,
    keys: Tensor,
    key_labels: Tensor,
    key_valid: Tensor,
    temperature: float = 0.07,
    exclude_self: Tensor | None = None,
) -> Tensor:
    """Contrast each query with all keys: those of its class are positives, those of other classes negatives.

    For one query, the mean over its positives of -log of the softmax share that this positive has among *itself and the negatives*;
    then the mean over queries:

        L = mean_q 1/|P| sum_{p in P} -log[ exp(q.p / t) / (exp(q.p / t) + sum_{n in N} exp(q.n / t)) ]

    The denominator holds this one positive and the negatives, not the other positives (the form of ContrastiveSeg; SupCon has all
    keys there), so positives do not push each other away. The mean runs over valid queries with at least one positive. Without any
    such query the value is 0 and so are all gradients; a query without negatives contributes 0.

    Vectors are L2-normalised here. Computed in float32 (float64 for float64 input), also inside autocast. Gradient flows to keys
    too where they carry one: detach them if they are not to learn. About four N x M tensors are held until the backward pass.

    Args:
        queries: (N, D).
        query_labels: integer (N,).
        query_valid: bool (N,): which slots hold a query.
        keys: (M, D), from the batch, a queue, or both one after the other.
        key_labels: integer (M,).
        key_valid: bool (M,): which slots hold a key.
        temperature: t > 0.
        exclude_self: int64 (N,): for each query, the index of the key that is the query itself and hence no positive; -1 for none.

    Returns:
        Scalar >= 0, float32 or float64.
    """
    dtype = torch.float64 if queries.dtype == torch.float64 else torch.float32
    with torch.autocast(device_type=queries.device.type, enabled=False):
        # Empty slots may hold anything, infinities included; zero vectors are safe to multiply.
        queries = functional.normalize(torch.where(query_valid[:, None], queries.to(dtype), 0.0), dim=1)
        keys = functional.normalize(torch.where(key_valid[:, None], keys.to(dtype), 0.0), dim=1)
        similarity = (queries / temperature) @ keys.T
        same = query_labels[:, None] == key_labels
        positive = same & key_valid
        if exclude_self is not None:
            positive = positive & (torch.arange(len(keys), device=keys.device) != exclude_self[:, None])
        negative = ~same & key_valid
        # e^-40 of the weakest possible similarity: nothing beside any true negative, yet finite, since the gradient of logsumexp over
        # nothing but -inf would be NaN, and no underflow, which makes exp several times slower on a CPU.
        negatives = similarity.masked_fill(~negative, -1 / temperature - 40).logsumexp(1, keepdim=True)
        # -log(e^s / (e^s + e^n)) = log(1 + e^(n - s))
        terms = torch.where(positive, functional.softplus(negatives - similarity), 0.0)
        num_positives = positive.sum(1)
        counted = query_valid & (num_positives > 0)
        contrasted = counted & negative.any(1)
        per_query = torch.where(contrasted, terms.sum(1) / num_positives.clamp(min=1), 0.0)
        return per_query.sum() / counted.sum().clamp(min=1)
