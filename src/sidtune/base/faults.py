"""What Pydantic finds wrong with a value, in the words of those who wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By the type of the error; what stands in braces is its context.
WORDS = {
    "missing": "is missing",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a smaller number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "string_type": "expected text",
    "literal_error": "expected {expected}",
    "greater_than": "expected more than {gt:.12g}",
    "greater_than_equal": "expected at least {ge:.12g}",
    "less_than": "expected less than {lt:.12g}",
    "less_than_equal": "expected at most {le:.12g}",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "too_short": "expected a length of at least {min_length}",
    "too_long": "expected a length of at most {max_length}",
    "string_too_short": "expected a length of at least {min_length}",
    "string_too_long": "expected a length of at most {max_length}",
    "dict_type": "expected keys with values",
    "model_type": "expected keys with values",
    "model_attributes_type": "expected keys with values",
    "dataclass_type": "expected keys with values",
    "datetime_type": "expected a date such as 2018-10-01",
    "datetime_parsing": "expected a date such as 2018-10-01",
    "datetime_from_date_parsing": "expected a date such as 2018-10-01",
}


def in_words(fault: Mapping[str, Any]) -> str:
    """What is wrong, of one of `ValidationError.errors()`, without its place and its value."""
    known = WORDS.get(fault["type"])
    if known is None:
        said: str = fault["msg"]
        return said.removeprefix("Value error, ")
    return known.format(**fault.get("ctx", {}))
