"""The calculator a core calls: exact numbers, dates and quantities with units, and nothing else.

A lexer of our own lets numbers, dates, units, operators and parentheses through and refuses every other character;
what it lets through it binds to names, and simpleeval evaluates an expression of nothing but these names. Numbers are
fractions, so decimals are exact; every operation checks its size before it is done. Called by the orchestrator.
"""

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias

import pint
import simpleeval

from knowledge_store.protocol import CALC_ERROR

_MAX_CHARACTERS = 256
_MAX_DIGITS = 100
_MAX_BITS = 1024
_MAX_DEPTH = 24
_MAX_OPERANDS = 48
_DECIMALS_EXACT = 30
_DECIMALS_ROUNDED = 6

Quantity: TypeAlias = Any  # pint's quantities are generic over what we do not need
Value: TypeAlias = Fraction | bool | date | Quantity


@dataclass(frozen=True, slots=True)
class Computed:
    """A result; `text` is what the core reads."""

    text: str


@dataclass(frozen=True, slots=True)
class Refused:
    """No result; `reason` is for people, the core reads `text`."""

    reason: str
    text: str = CALC_ERROR


class _NotComputableError(Exception):
    """Ends an evaluation; its text is the reason."""


def compute(expression: str) -> Computed | Refused:
    """Evaluate arithmetic or a comparison: ``1990 - 1954``, ``20 > 1``, ``3 km < 2 mi``, ``2024-03-01 - 2024-02-01``.

    An integer is written plain, a decimal without trailing zeros and exactly where it ends within 30 places, else
    rounded to 6; a truth value is ``true`` or ``false``; a span between dates is in days. Takes less than 50 ms
    whatever the expression, once `warm_up` was called.
    """
    try:
        return Computed(_write(_evaluate(expression)))
    except _NotComputableError as error:
        return Refused(str(error))
    except ZeroDivisionError:
        return Refused("division by zero")
    except (simpleeval.InvalidExpression, pint.PintError, SyntaxError, TypeError, ValueError) as error:
        return Refused(f"not arithmetic: {error}"[:200])
    except (OverflowError, RecursionError, MemoryError):
        return Refused("too large to compute")


def warm_up() -> None:
    """Load the table of units, which takes some tenths of a second, before the first quantity needs it."""
    _unit("km")


# --- Reading -------------------------------------------------------------------------------------------------------

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_TOKEN = re.compile(
    rf"""\s*(?:
      (?P<date>\d{{4}}-\d{{2}}-\d{{2}})(?![\d.])
    | (?P<number>{_NUMBER})(?![\d.])(?:\s?(?P<unit>(?!(?:and|or)\b)[A-Za-zµ°]{{1,24}}(?:/[A-Za-z]{{1,24}})?))?
    | (?P<word>true|false|and|or|not)\b
    | (?P<operator>\*\*|//|<=|>=|==|!=|[-+*/%^<>=()−×÷≤≥≠])
    )""",
    re.VERBOSE | re.ASCII,
)
_SPELLINGS = {"^": "**", "=": "==", "−": "-", "×": "*", "÷": "/", "≤": "<=", "≥": ">=", "≠": "!="}
_TRUTHS = {"true": "True", "false": "False"}


def _evaluate(expression: str) -> Value:
    if len(expression) > _MAX_CHARACTERS:
        raise _NotComputableError(f"longer than {_MAX_CHARACTERS} characters")
    source, names = _read(expression.strip())
    evaluator = simpleeval.SimpleEval(operators=_OPERATORS, functions={}, names=names)
    handlers: dict[type[ast.AST], Callable[..., Value]] = {kind: evaluator.nodes[kind] for kind in _NODES}
    handlers[ast.BoolOp] = lambda node: _connect(node, handlers)
    evaluator.nodes = handlers
    value: Value = evaluator.eval(source)
    return value


def _connect(node: ast.BoolOp, handlers: dict[type[ast.AST], Callable[..., Value]]) -> bool:
    truths = [_truth(handlers[type(part)](part)) for part in node.values]
    return all(truths) if isinstance(node.op, ast.And) else any(truths)


def _read(expression: str) -> tuple[str, dict[str, Value]]:
    words: list[str] = []
    names: dict[str, Value] = {}
    place = depth = 0
    while place < len(expression):
        match = _TOKEN.match(expression, place)
        if match is None:
            raise _NotComputableError(f"cannot read {expression[place : place + 20]!r}")
        place = match.end()
        if match["operator"] or match["word"]:
            word = match["operator"] or match["word"]
            depth += {"(": 1, ")": -1}.get(word, 0)
            words.append(_SPELLINGS.get(word) or _TRUTHS.get(word) or word)
        else:
            name = f"v{len(names)}"
            names[name] = _read_date(match["date"]) if match["date"] else _read_number(match["number"], match["unit"])
            words.append(name)
        if depth > _MAX_DEPTH or len(names) > _MAX_OPERANDS:
            raise _NotComputableError("too many parts")
    return " ".join(words), names


def _read_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise _NotComputableError(f"{text} is no date") from error


def _read_number(text: str, unit: str | None) -> Value:
    if len(text) > _MAX_DIGITS:
        raise _NotComputableError(f"a number of more than {_MAX_DIGITS} digits")
    number = Fraction(text.replace(",", ""))
    return number if unit is None else _registry().Quantity(number, _unit(unit))


@cache
def _registry() -> Any:
    return pint.UnitRegistry(non_int_type=Fraction, autoconvert_offset_to_baseunit=False)


@cache
def _unit(name: str) -> Any:
    try:
        return _registry().parse_units(name)
    except (pint.PintError, ValueError, AttributeError) as error:
        raise _NotComputableError(f"{name!r} is no unit") from error


# --- Computing -----------------------------------------------------------------------------------------------------


def _fits(value: Value) -> Value:
    size = value.magnitude if isinstance(value, pint.Quantity) else value
    if isinstance(size, Fraction) and max(size.numerator.bit_length(), size.denominator.bit_length()) > _MAX_BITS:
        raise _NotComputableError("too large to compute")
    return value


def _numeric(value: Value) -> Any:
    if isinstance(value, bool) or not isinstance(value, Fraction | pint.Quantity):
        raise _NotComputableError(f"{_write(value)} is no number")
    return value


def _arithmetic(operation: Callable[[Any, Any], Any]) -> Callable[[Value, Value], Value]:
    return lambda left, right: _fits(operation(_numeric(left), _numeric(right)))


def _whole(operation: Callable[[Any, Any], Any]) -> Callable[[Value, Value], Value]:
    return lambda left, right: _fits(Fraction(operation(_number(left), _number(right))))


def _number(value: Value) -> Fraction:
    if not isinstance(value, Fraction):
        raise _NotComputableError(f"{_write(value)} is no plain number")
    return value


def _add(left: Value, right: Value) -> Value:
    match left, right:
        case (date(), pint.Quantity()):
            return left + _days(right)
        case (pint.Quantity(), date()):
            return right + _days(left)
        case _:
            return _fits(_numeric(left) + _numeric(right))


def _subtract(left: Value, right: Value) -> Value:
    match left, right:
        case (date(), date()):
            return _registry().Quantity(Fraction((left - right).days), _unit("days"))
        case (date(), pint.Quantity()):
            return left - _days(right)
        case _:
            return _fits(_numeric(left) - _numeric(right))


def _days(span: Quantity) -> timedelta:
    days = span.to(_unit("days")).magnitude
    if not isinstance(days, Fraction) or days.denominator != 1 or abs(days) > 4_000_000:
        raise _NotComputableError("only whole days can be added to a date")
    return timedelta(days=int(days))


def _power(base: Value, exponent: Value) -> Value:
    base, exponent = _number(base), _number(exponent)
    if exponent.denominator != 1:
        raise _NotComputableError("an exponent is a whole number")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits > 1 and bits * abs(exponent) > 2 * _MAX_BITS:
        raise _NotComputableError("too large to compute")
    if bits <= 1:  # 0, 1 and -1 stay small under every exponent, and only its parity matters
        exponent = Fraction((exponent > 0) - (exponent < 0)) * (2 - int(exponent) % 2)
    return _fits(Fraction(base ** int(exponent)))


def _compare(operation: Callable[[Any, Any], Any]) -> Callable[[Value, Value], bool]:
    def compare(left: Value, right: Value) -> bool:
        kinds = {bool, date, Fraction}
        alike = type(left) is type(right) or not (type(left) in kinds or type(right) in kinds)
        if not alike or (isinstance(left, bool) and operation not in (operator.eq, operator.ne)):
            raise _NotComputableError("two unlike things cannot be compared")
        if isinstance(left, pint.Quantity) and not left.is_compatible_with(right):
            raise _NotComputableError("two quantities of different kinds cannot be compared")
        return bool(operation(left, right))

    return compare


_OPERATORS: dict[type[ast.AST], Callable[..., Value]] = {
    ast.Add: _add,
    ast.Sub: _subtract,
    ast.Mult: _arithmetic(operator.mul),
    ast.Div: _arithmetic(operator.truediv),
    ast.FloorDiv: _whole(operator.floordiv),
    ast.Mod: _whole(operator.mod),
    ast.Pow: _power,
    ast.USub: lambda value: -_numeric(value),
    ast.UAdd: lambda value: _numeric(value),
    ast.Not: lambda value: not _truth(value),
    ast.Eq: _compare(operator.eq),
    ast.NotEq: _compare(operator.ne),
    ast.Gt: _compare(operator.gt),
    ast.Lt: _compare(operator.lt),
    ast.GtE: _compare(operator.ge),
    ast.LtE: _compare(operator.le),
}


def _truth(value: Value) -> bool:
    if not isinstance(value, bool):
        raise _NotComputableError(f"{_write(value)} is neither true nor false")
    return value


_NODES = (ast.Expr, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Name, ast.Constant)


# --- Writing -------------------------------------------------------------------------------------------------------


def _write(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case date():
            return value.isoformat()
        case int() | Fraction():
            return _write_number(Fraction(value))
        case pint.Quantity() if isinstance(value.magnitude, int | Fraction):
            number = _write_number(Fraction(value.magnitude))
            if value.dimensionless and value.units == _registry().dimensionless:
                return number
            return f"{number} {_write_unit(value)}"
        case _:
            raise _NotComputableError("the result is no number, date, quantity or truth value")


def _write_unit(quantity: Quantity) -> str:
    if quantity.units == _unit("days"):
        return "days"
    above: list[str] = []
    below: list[str] = []
    for name, exponent in sorted(quantity.unit_items()):
        symbol = _registry().get_symbol(name)
        power = "" if abs(exponent) == 1 else f"^{_write_number(Fraction(abs(exponent)))}"
        (above if exponent > 0 else below).append(symbol + power)
    return "·".join(above or ["1"]) + "".join(f"/{part}" for part in below)


def _write_number(number: Fraction) -> str:
    if number.denominator == 1:
        return str(number.numerator)
    shifted = number * 10**_DECIMALS_EXACT
    if shifted.denominator != 1:
        shifted = Fraction(round(number * 10**_DECIMALS_ROUNDED)) * 10 ** (_DECIMALS_EXACT - _DECIMALS_ROUNDED)
    digits = str(abs(int(shifted))).rjust(_DECIMALS_EXACT + 1, "0")
    whole, decimals = digits[:-_DECIMALS_EXACT], digits[-_DECIMALS_EXACT:].rstrip("0")
    sign = "-" if shifted < 0 else ""
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"
