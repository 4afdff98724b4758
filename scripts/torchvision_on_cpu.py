"""Lets a torchvision that was built for CUDA be imported beside a CPU torch.

PyPI has no CPU build of torchvision. Beside a CPU torch the operators of its build cannot be loaded, and importing it
fails where it describes two of them to torch. This module declares these two; the rest is Python code, which works, and
is all that image processors need. Calling an operator (`nms`, ...) fails, as it must.

scripts/setup.py copies this file into .venv, beside a .pth file that imports it in every process. That costs nothing
until a process imports torchvision.
"""

import os
import sys

OPERATORS = ("nms", "qnms")


class DeclaringFinder:
    """Finds torchvision where it is, and has its operators declared before it is executed."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "torchvision":
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = declaring_loader(spec)
        return spec


def declaring_loader(spec):
    from importlib.machinery import SourceFileLoader

    class DeclaringLoader(SourceFileLoader):
        def exec_module(self, module):
            # A library that declares the operators itself, as that of a CPU build does, must find them undeclared.
            if not loads_operators(os.path.dirname(spec.origin)):
                declare_operators()
            super().exec_module(module)

    return DeclaringLoader(spec.name, spec.origin)


def loads_operators(folder):
    """Whether torchvision's own library can be loaded beside the installed torch."""
    import torch

    try:
        torch.ops.load_library(os.path.join(folder, "_C.so"))
    except OSError:
        return False
    return True


def declare_operators():
    import torch

    # A library takes its declarations with it when it is collected.
    declare_operators.library = torch.library.Library("torchvision", "DEF")
    for name in OPERATORS:
        declare_operators.library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, DeclaringFinder())
