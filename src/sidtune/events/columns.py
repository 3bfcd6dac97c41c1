"""Which column of a table means what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sidtune.base.errors import UserError, did_you_mean

# In lower case, without blanks and signs; the first that a table has counts.
USUAL: Mapping[str, tuple[str, ...]] = {
    "user": (
        "userid",
        "user",
        "customerid",
        "customer",
        "uid",
        "visitorid",
        "visitor",
        "memberid",
        "reviewerid",
    ),
    "item": (
        "itemid",
        "item",
        "productid",
        "product",
        "sku",
        "parentasin",
        "asin",
        "movieid",
        "articleid",
        "iid",
        "trackid",
        "bookid",
        "newsid",
    ),
    "time": (
        "timestamp",
        "time",
        "ts",
        "datetime",
        "eventtime",
        "unixreviewtime",
        "createdat",
        "date",
        "tdat",
        "unixtime",
        "timestampms",
    ),
    "position": ("position",),
    "rating": ("rating", "overall", "stars", "score"),
    "type": ("eventtype", "event", "action", "behavior", "behaviour", "behaviortype"),
    "id": (
        "itemid",
        "id",
        "productid",
        "sku",
        "parentasin",
        "asin",
        "movieid",
        "articleid",
        "item",
        "iid",
    ),
    "title": (
        "title",
        "name",
        "itemtitle",
        "productname",
        "itemname",
        "prodname",
        "movietitle",
        "producttitle",
    ),
}


def find_column(
    role: str, given: str | None, names: Sequence[str], where: str, section: str
) -> str | None:
    """The column of a role: the one that the configuration names, or one of the usual names; None
    where there is none.

    Args:
        role: a key of `USUAL`.
        given: what the configuration says.
        names: the columns of the table.
        where: the table, for messages.
        section: of the configuration, for messages.

    Raises:
        UserError: for a column that is named and not there.
    """
    if given is not None:
        if given in names:
            return given
        raise UserError(
            f"{where}: no column {given!r}{did_you_mean(given, names)}; found"
            f" {', '.join(names)[:500]}",
            f"{section}.{role} names the column of the {role}.",
        )
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(re.sub(r"[\W_]+", "", name).casefold(), name)
    return next((plain[usual] for usual in USUAL[role] if usual in plain), None)


def needed_column(
    role: str, given: str | None, names: Sequence[str], where: str, section: str
) -> str:
    """As `find_column`, and refuses a table without the column."""
    found = find_column(role, given, names, where, section)
    if found is None:
        raise UserError(
            f"{where}: no column is known as the {role}; found {', '.join(names)[:500]}",
            f"Name it: {section}.{role}=COLUMN. Known by themselves: {', '.join(USUAL[role])}.",
        )
    return found
