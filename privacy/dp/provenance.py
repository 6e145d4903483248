"""Tensors that know that they come from a patient.

A marked tensor marks whatever is computed from it: losses, features, fakes of a patient's label map, however far away.
The mark is taken off by :func:`disclosed`, which the noised step alone calls, on a sum that it has clipped and noised.
A network's update that would touch a patient fails before it happens (PRIVACY §1.1, §8 T2): where a gradient would
flow back from a marked value or start from one, where a function transform (``torch.func``, ``torch.vmap``) meets one,
and, since some ways to a gradient pass by all of that, in the step of whatever optimiser finds one among its gradients,
its state or its settings. The training loop, which reads scans from disk and not from here, takes none at all under a
promise.

It guards against mistakes of ours, and not against all of them: what torch does not dispatch to tensors' own classes
sees through a mark. ``tests/test_marks_seen_through.py`` holds the ways that are known:

- what makes a tensor of another: ``torch.tensor``, ``new_tensor``, the old constructors (``torch.Tensor(x)``,
  ``torch.FloatTensor(x)``, ``t.new(x)`` of a tensor that is not marked), nested and sparse tensors, ``to_dlpack``,
  ``as_subclass``;
- what puts another in a tensor's place: ``t.set_(x)``, ``param.data = x``, and with it
  ``nn.utils.vector_to_parameters``;
- a number that torch takes as one: ``torch.full(…, x)``, ``torch.arange(x)``, ``t.add(…, alpha=x)``;
- a norm's running statistics, and shapes that depend on values;
- a custom autograd function or a hook whose backward pass hands back a patient's tensor as it is, without computing
  anything from it;
- scripted and traced functions; of compiled ones nothing is known.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ...common.errors import PolicyRefused

_READS = frozenset(
    {
        "tensor",
        "new_tensor",
        "full",
        "arange",
        "__dlpack__",
        "__contains__",
        "item",
        "tolist",
        "numpy",
        "__array__",
        "__float__",
        "__int__",
        "__index__",
        "__complex__",
    }
)
"""What would turn a tensor into plain Python or NumPy."""
_DECIDES = frozenset({"__bool__", "is_nonzero", "equal", "allclose", "nonzero", "unique"})
"""What would let a patient's voxels steer the program."""
_SYMBOLIC = "sym_"
"""How torch's names of functions begin that take tensors for numbers, such as ``torch.sym_float``."""
_LOSES_MARKS = ("torch.autograd", "torch._functorch")
"""What of torch hands tensors to its engine or wraps them, which takes their class away; it asks for a shape before."""
_STORAGE = frozenset({"untyped_storage", "storage", "data_ptr", "share_memory_", "__reduce_ex__", "__deepcopy__"})


class PrivateDataReached(PolicyRefused):
    """Something that must not see a patient was about to."""


class Marked(Tensor):
    """A tensor that derives from a private scan or label map."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, options = getattr(func, "__name__", ""), dict(kwargs or {})
        if name == "backward":
            raise _reached("a loss that was computed from a patient was about to update a network")
        if _loses_marks(sys._getframe(1).f_globals.get("__name__", "")):
            raise _reached("a value computed from a patient was about to enter a gradient where marks are lost")
        if name in _READS | _DECIDES | _STORAGE or name.startswith(_SYMBOLIC):
            raise _reached(f"a value computed from a patient was about to be read ('{name}')")
        if _writes_elsewhere(name, args, options):
            raise _reached("a value computed from a patient was about to be written where nothing is marked")
        with torch._C.DisableTorchFunctionSubclass():  # the way torch's own documentation of subclasses goes
            return _marked(func(*args, **options))

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]  # torch leaves its own untyped
        return f"Marked(shape={tuple(self.shape)})"  # never its values

    __str__ = __repr__


def mark(value: Tensor) -> Tensor:
    """The same values, marked."""
    return value.as_subclass(Marked)


def marked(value: object) -> bool:
    """Whether a value derives from a patient."""
    return isinstance(value, Marked)


def refuse_marked(*values: Tensor) -> None:
    """Refuse what derives from a patient where nothing clips it. Raises PrivateDataReached."""
    if any(map(marked, values)):
        raise _reached("a value computed from a patient was about to be added to a noised sum as it is")


def disclosed(value: Tensor) -> Tensor:
    """The same values without the mark. Only for what is clipped and noised, or stays inside that computation."""
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(Tensor)


def _loses_marks(caller: str) -> bool:
    """Whether torch itself asks, from where marks are lost, or we are inside a transform or a hook of a backward pass.

    ``torch.autograd.grad`` of a marked loss asks through torch's overrides instead, and its gradients are marked.
    """
    inside = torch._C._are_functorch_transforms_active() or torch._C._current_graph_task_id() != -1
    return inside or caller.startswith(_LOSES_MARKS)


def _refuse_marked_step(optimiser: Optimizer, *_: object) -> None:
    """Before the step of any optimiser there is, whoever made it."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters]
    if _holds_mark([optimiser.param_groups, gradients, list(optimiser.state.values())]):
        raise _reached("an optimiser was about to step with a value computed from a patient")


def _holds_mark(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_mark, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_mark, value))
    return marked(value)


register_optimizer_step_pre_hook(_refuse_marked_step)


def _marked(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result if isinstance(result, Marked) else result.as_subclass(Marked)
    if isinstance(result, tuple | list):
        parts = [_marked(part) for part in result]
        # Named tuples (torch.max with a dimension) are made of their parts, others of one sequence.
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
    return result


def _writes_elsewhere(name: str, args: tuple[Any, ...], options: Mapping[str, Any]) -> bool:
    if (out := options.get("out")) is not None:
        return not all(map(marked, out if isinstance(out, tuple | list) else (out,)))
    in_place = name in {"__setitem__", "__set__"} or (name.endswith("_") and not name.endswith("__"))
    in_place = in_place or (name.startswith("__i") and name.endswith("__") and name not in {"__invert__", "__index__"})
    if not in_place or not args:
        return False
    targets = args[0] if isinstance(args[0], tuple | list) else (args[0],)
    return not all(map(marked, targets))


def _reached(found: str) -> PrivateDataReached:
    return PrivateDataReached(
        found,
        expected="under differential privacy, nothing of a patient outside the clipped and noised sum",
        remedy="Nothing was updated. Train with objective = 'adversarial' on public label maps, or with dp = 'none'.",
    )
