"""Which column of a table means what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sidtune.base.errors import UserError, did_you_mean
from sidtune.data.item_files import plain_name

# In lower case, without blanks and signs; the first that a table has counts.
USUAL: Mapping[str, tuple[str, ...]] = {
    role: tuple(names.split())
    for role, names in {
        "user": """
            userid user customerid customer uid visitorid visitor memberid reviewerid member
            membernumber clientid client buyerid buyer accountid
            用户id 用户 用户编号 用户号 会员id 会员号 会员编号 客户id 客户编号
        """,
        "item": """
            itemid item productid product sku parentasin asin movieid articleid iid trackid
            bookid newsid songid gameid videoid goodsid isbn stockcode productcode itemcode
            商品id 商品编号 商品 物品id 产品id 产品编号 电影id 图书id 新闻id 歌曲id
            视频id 游戏id 文章id
        """,
        "time": """
            timestamp time ts datetime eventtime unixreviewtime createdat date tdat unixtime
            timestampms orderdate ordertime orderedat purchasedate invoicedate createtime
            reviewtime clicktime visittime eventdate
            时间 时间戳 日期 下单时间 购买时间 交易时间 创建时间 点击时间 评分时间
        """,
        "position": "position",
        "rating": """
            rating overall stars score
            评分
        """,
        "type": """
            eventtype event action behavior behaviour behaviortype
            行为类型 行为 事件类型
        """,
        "id": """
            itemid id productid sku parentasin asin movieid articleid item iid product trackid
            bookid newsid songid gameid videoid goodsid isbn stockcode productcode itemcode
            商品id 商品编号 物品id 产品id 产品编号 电影id 图书id 新闻id 歌曲id 视频id
            游戏id 文章id 编号
        """,
        "title": """
            title name itemtitle productname itemname prodname movietitle producttitle booktitle
            newstitle headline songname trackname gamename
            标题 名称 商品名称 商品名 商品标题 物品名称 产品名称 电影名称 电影名 片名 书名 图书名称
            新闻标题 歌曲名 歌名 视频标题 游戏名称 文章标题
        """,
    }.items()
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
        plain.setdefault(plain_name(name), name)
    return next((plain[usual] for usual in USUAL[role] if usual in plain), None)


def like_named(name: str, names: Sequence[str]) -> str | None:
    """The first column with the name of another table's column, however it is written."""
    plain = plain_name(name)
    return next((column for column in names if plain_name(column) == plain), None)


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
