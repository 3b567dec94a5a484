"""A hint to the processor, for kernels that read rows of a table far larger than its caches."""

from __future__ import annotations

from typing import Any


def _make() -> Any:
    """numba offers none: LLVM's own intrinsic, llvm.prefetch (LLVM Language Reference Manual), for reading and
    writing soon, into all caches."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def prefetch(typing_context, table, row, byte):  # type: ignore[no-untyped-def]
        def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            strides = builder.extract_value(array.strides, 0)
            offset = builder.add(builder.mul(arguments[1], strides), arguments[2])
            address = builder.add(builder.ptrtoint(array.data, offset.type), offset)
            pointer = ir.IntType(8).as_pointer()
            word = ir.IntType(32)
            hint = builder.module.declare_intrinsic(
                "llvm.prefetch", [pointer], ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
            )
            builder.call(hint, [builder.inttoptr(address, pointer), word(1), word(3), word(1)])
            return context.get_dummy_value()

        return types.void(table, types.int64, types.int64), code

    return prefetch


prefetch = _make()
"""prefetch(table, row, byte): fetch the cache line at a byte of a row of a C-contiguous array; row and byte: int64."""

LINE = 64
"""Bytes of a cache line."""
AHEAD = 12
"""Rows that are on their way at once: measured, 8 to 16 are alike."""
