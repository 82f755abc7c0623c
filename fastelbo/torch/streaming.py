"""Bounds of the evidence from log weights that come chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch

import fastelbo
from fastelbo.torch._tensors import check_tensors, is_wrapped, widened

if TYPE_CHECKING:
    from torch import Tensor

    from fastelbo._typing import Reduction, Threads


class StreamingBound(fastelbo.StreamingBound):
    """Bounds of log p(x) from chunks of log weights; see :class:`fastelbo.StreamingBound`.

    Chunks are tensors, and so are the results: in their dtype, where the last one is. What is kept
    is float64 in the memory of the processor, O(B), to which chunks of another device are copied.
    There are no gradients, which would need all samples at once.

    Parameters
    ----------
    num_threads : int, optional

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import StreamingBound, importance_bound
    >>> log_w = torch.tensor([[-90.0], [-91.0], [-93.0], [-90.5]])
    >>> stream = StreamingBound()
    >>> for chunk in log_w.split(2):
    ...     stream = stream.update(chunk)
    >>> stream.bound(), importance_bound(log_w)
    (tensor(-90.6811), tensor(-90.6811))
    """

    _like = None

    def __init__(self, *, num_threads: Threads = None) -> None:
        super().__init__(num_threads=num_threads)

    @torch.compiler.disable
    def update(self, log_w: Tensor) -> Self:  # type: ignore[override]
        """Add the log weights of more samples.

        Parameters
        ----------
        log_w : Tensor, shape (any number of samples, B)
            From :func:`log_weights` under ``torch.no_grad()``, say.

        Returns
        -------
        StreamingBound
            This object.

        Raises
        ------
        ValueError, TypeError
            If log_w is no such tensor or requires a gradient, or B is not that of the chunks
            before.
        """
        check_tensors(log_w=log_w)
        if log_w.requires_grad:
            raise TypeError(
                "log_w requires a gradient, which a stream does not keep: detach it, or compute it "
                "under torch.no_grad()"
            )
        if is_wrapped(log_w):
            raise NotImplementedError(
                "StreamingBound keeps numbers, which torch.func hides: call update outside of it"
            )
        with fastelbo.num_threads(torch.get_num_threads()):
            super().update(widened(log_w).cpu().numpy())
        dtype = log_w.dtype if log_w.is_floating_point() else torch.get_default_dtype()
        self._promote(torch.empty(0, dtype=dtype, device=log_w.device))
        return self

    def _promote(self, like):
        """Results are in the dtype of all that was seen, where the last of it was."""
        if self._like is not None:
            like = like.to(torch.promote_types(like.dtype, self._like.dtype))
        self._like = like

    def merge(self, other: fastelbo.StreamingBound) -> Self:
        """Add what another StreamingBound of the same B has seen, one of fastelbo's, too.

        Parameters
        ----------
        other : StreamingBound

        Returns
        -------
        StreamingBound
            This object.
        """
        super().merge(other)
        if (like := getattr(other, "_like", None)) is not None:
            self._promote(like)
        return self

    def bound(self, *, alpha: float = 0.0, reduction: Reduction = "mean") -> Tensor:  # type: ignore[override]
        """The bound of all samples seen.

        Parameters
        ----------
        alpha : {0, 1, -1}
            0 is IWAE's, 1 the ELBO, -1 :func:`cubo` with n = 2.
        reduction : {"mean", "sum", "none"}
            Over the batch.

        Returns
        -------
        Tensor, shape (), or (B,) for ``reduction="none"``
            In nats.
        """
        return self._as_tensor(super().bound(alpha=alpha, reduction=reduction))

    def effective_sample_size(self) -> Tensor:  # type: ignore[override]
        """As :func:`effective_sample_size` of all samples seen, (B,)."""
        return self._as_tensor(super().effective_sample_size())

    def standard_error(self, *, reduction: Reduction = "mean") -> Tensor:  # type: ignore[override]
        """Standard error of ``bound()`` over the draws of z, by the delta method.

        Parameters
        ----------
        reduction : {"mean", "sum", "none"}
            Over the batch.

        Returns
        -------
        Tensor, shape (), or (B,) for ``reduction="none"``
            In nats; NaN for a single sample.
        """
        return self._as_tensor(super().standard_error(reduction=reduction))

    def _as_tensor(self, value):
        like = torch.empty(0) if self._like is None else self._like
        return torch.as_tensor(value, dtype=like.dtype, device=like.device)
