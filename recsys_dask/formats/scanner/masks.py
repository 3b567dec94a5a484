"""Thirty-two bytes at a time: a few vector instructions that numba has no names for, and the padding they ask for.

Every function reads up to 32 bytes from its place on, whatever the data's length. So a text has 64 zero bytes behind it
(`texts.PAD`): a zero byte is legal nowhere in JSON, every scan stops at it, and what is read beyond is still ours.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending, types

_intrinsic: Any = extending.intrinsic  # its types know nothing of the context that it hands on
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_V32 = ir.VectorType(_I8, 32)


def _place(context: Any, builder: Any, sig: Any, args: Any, which: int) -> Any:
    """The pointer to `array[index]`, of which `which` and the next are the arguments."""
    array = context.make_array(sig.args[which])(context, builder, args[which])
    index = context.cast(builder, args[which + 1], sig.args[which + 1], types.int64)
    return builder.gep(array.data, [index])


def _vector(context: Any, builder: Any, sig: Any, args: Any, which: int = 0) -> Any:
    pointer = builder.bitcast(_place(context, builder, sig, args, which), _V32.as_pointer())
    return builder.load(pointer, align=1)


def _all(byte: int) -> Any:
    return ir.Constant(_V32, [byte] * 32)


def _mask(builder: Any, truths: Any) -> Any:
    """Thirty-two truth values as the low bits of a uint64."""
    return builder.zext(builder.bitcast(truths, _I32), _I64)


@_intrinsic
def load64(typingctx, array, at):  # type: ignore[no-untyped-def]
    """The eight bytes from `array[at]` on as a little-endian uint64."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        pointer = builder.bitcast(_place(context, builder, sig, args, 0), _I64.as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(array, at), codegen


@_intrinsic
def special_in_text(typingctx, array, at):  # type: ignore[no-untyped-def]
    """Bit k is set where `array[at + k]` is a quote, a backslash, a control character or not ASCII."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        v = _vector(context, builder, sig, args)
        quote = builder.icmp_signed("==", v, _all(34))
        backslash = builder.icmp_signed("==", v, _all(92))
        other = builder.icmp_signed("<", v, _all(32))  # as signed numbers, bytes from 128 on are negative
        return _mask(builder, builder.or_(builder.or_(quote, backslash), other))

    return types.uint64(array, at), codegen


@_intrinsic
def not_blank(typingctx, array, at):  # type: ignore[no-untyped-def]
    """Bit k is set where `array[at + k]` is none of JSON's four blanks."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        v = _vector(context, builder, sig, args)
        blank = builder.icmp_signed("==", v, _all(32))
        for byte in b"\n\r\t":
            blank = builder.or_(blank, builder.icmp_signed("==", v, _all(byte)))
        return _mask(builder, builder.not_(blank))

    return types.uint64(array, at), codegen


@_intrinsic
def base62(typingctx, array, at):  # type: ignore[no-untyped-def]
    """Bit k is set where `array[at + k]` is one of 0-9, A-Z, a-z."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        v = _vector(context, builder, sig, args)
        digit = builder.icmp_unsigned("<", builder.sub(v, _all(48)), _all(10))
        letter = builder.icmp_unsigned("<", builder.sub(builder.or_(v, _all(32)), _all(97)), _all(26))
        return _mask(builder, builder.or_(digit, letter))

    return types.uint64(array, at), codegen


@_intrinsic
def different(typingctx, array, at, other):  # type: ignore[no-untyped-def]
    """Bit k is set where `array[at + k]` is not `array[other + k]`."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        one = _vector(context, builder, sig, args)
        two = _vector(context, builder, types.uint64(sig.args[0], sig.args[2]), [args[0], args[2]])
        return _mask(builder, builder.icmp_signed("!=", one, two))

    return types.uint64(array, at, other), codegen


@_intrinsic
def copy32(typingctx, out, to, array, at):  # type: ignore[no-untyped-def]
    """Copy `array[at : at + 32]` to `out[to : to + 32]`; bit k is set where that was a backslash."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        v = _vector(context, builder, sig, args, 2)
        pointer = builder.bitcast(_place(context, builder, sig, args, 0), _V32.as_pointer())
        builder.store(v, pointer, align=1)
        return _mask(builder, builder.icmp_signed("==", v, _all(92)))

    return types.uint64(out, to, array, at), codegen


@_intrinsic
def lowest(typingctx, mask):  # type: ignore[no-untyped-def]
    """The number of the lowest bit that is set, int64; 64 where none is."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen
