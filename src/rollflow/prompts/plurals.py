"""Conversion of plurals to singulars, by spelling rules and lists of exceptions."""

from __future__ import annotations

import re

IRREGULAR: dict[str, str] = dict(
    pair.split(":")
    for pair in re.findall(
        r"\S+",
        """
        people:person mice:mouse lice:louse geese:goose feet:foot teeth:tooth oxen:ox
        knives:knife penknives:penknife wives:wife housewives:housewife lives:life loaves:loaf leaves:leaf thieves:thief
        wolves:wolf werewolves:werewolf shelves:shelf bookshelves:bookshelf elves:elf halves:half calves:calf
        scarves:scarf hooves:hoof dwarves:dwarf
        cacti:cactus fungi:fungus octopi:octopus larvae:larva antennae:antenna nebulae:nebula
        vertices:vertex matrices:matrix oases:oasis crises:crisis
        gases:gas atlases:atlas canvases:canvas lenses:lens irises:iris mantises:mantis ibises:ibis trellises:trellis
        thermoses:thermos rhinoceroses:rhinoceros quizzes:quiz
        menus:menu emus:emu gnus:gnu gurus:guru tutus:tutu
        """,
    )
)
"""Plurals whose singular follows no spelling rule."""

UNCHANGED = frozenset(
    re.findall(
        r"\w+",
        "series species news clothes scissors trousers pants jeans shorts tights pajamas pyjamas glasses sunglasses "
        "eyeglasses goggles binoculars tongs pliers tweezers headquarters gas lens iris atlas canvas christmas mantis "
        "ibis trellis axis tennis thermos rhinoceros chaos cosmos mars molasses",
    )
)
"""Words ending in s that are singular already, or have no singular."""

MEN = frozenset(re.findall(r"\w+", "abdomen amen cyclamen omen ramen regimen semen specimen stamen"))
"""Singulars ending in men."""

ONLY_S = frozenset(
    re.findall(
        r"\w+",
        "aunties beanies birdies brownies budgies calories collies cookies foodies genies goalies hippies hoodies "
        "junkies magpies movies neckties newbies pixies prairies rookies selfies smoothies talkies veggies walkies "
        "yuppies zombies aloes canoes does floes foes hoes mistletoes oboes roes sloes throes tiptoes toes aches "
        "avalanches backaches brioches caches cliches creches ganaches headaches moustaches mustaches niches pastiches "
        "porsches psyches quiches toothaches axes pickaxes excuses fuses muses recluses ruses uses",
    )
)
"""Plurals of words ending in e, which look like plurals in es."""


def singular(thing: str) -> str:
    """Convert the name of several things to that of one: "red foxes" becomes "red fox".

    Only the last word, or the part after its last hyphen, changes. For lowercase words, -ies becomes -y; -es is removed
    after x, ch, sh, ss, zz, tz, us and o, and otherwise only -s; -men becomes -man; -ss, -us and -sis stay. The
    exceptions are listed above.
    """
    last = max(thing.rfind(" "), thing.rfind("-")) + 1
    return thing[:last] + _singular(thing[last:])


def _singular(word: str) -> str:
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word in UNCHANGED or word.endswith(("ss", "us", "sis")):
        return word
    if word.endswith("children"):
        return word.removesuffix("ren")
    if word.endswith("men") and word not in MEN:
        return word.removesuffix("men") + "man"
    if word in ONLY_S or word.endswith(("shoes", "auses", "ouses")):
        return word[:-1]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if re.search(r"(x|ch|sh|ss|zz|tz|us|[^aeou]o)es$", word):
        return word[:-2]
    return word[:-1] if len(word) > 2 and word.endswith("s") else word


def plural(thing: str) -> str:
    """Convert the name of one thing to that of several: "red fox" becomes "red foxes".

    The inverse of ``singular`` for regular words and for those of ``IRREGULAR``; other plurals have -s, or -es where
    that is spelled so.
    """
    last = max(thing.rfind(" "), thing.rfind("-")) + 1
    return thing[:last] + _plural(thing[last:])


_PLURALS = {one: many for many, one in IRREGULAR.items()}
_SAME = tuple(["fish", "sheep", "deer", "moose", "bison", "salmon", "trout", "squid", "aircraft"])


def _plural(word: str) -> str:
    if word in _PLURALS:
        return _PLURALS[word]
    if word in UNCHANGED or word.endswith(_SAME):
        return word
    if word.endswith("child"):
        return f"{word}ren"
    if word.endswith("man") and word not in ("human", "german", "roman"):
        return f"{word[:-2]}en"
    if re.search(r"[^aeiou]y$", word):
        return f"{word[:-1]}ies"
    return f"{word}es" if re.search(r"(s|x|ch|sh|z)$", word) else f"{word}s"
