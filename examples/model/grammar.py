"""The grammar behind the corpus: templates, people, prices, weather. Standard library only.

A template is a sentence with choices and slots:  "[Rain|Snow] fell on {town}, and {^h.he} smiled."
Choices may nest. A slot looks up the tale's environment, follows attributes, and `^` capitalises the result.
What is *said* varies freely; what is *true* (who owns the ring, what it costs) sits in the environment and is
decided once per tale, which is what makes the later sentences of a tale follow from the earlier ones.
"""
import re

CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\^?)(\w+)((?:\.\w+)*)\}")
SOUNDS_LIKE_YOU = ("one", "uni", "use", "eu", "once")
NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
           "seventeen eighteen nineteen twenty").split()

MEN = ("Aldo Alwin Anton Arlo Barnaby Bertram Bruno Cedric Colin Corwin Dorian Edgar Edmund Elias Emil Ewan Felix "
       "Garrick Gideon Gregor Gunther Harold Hugo Ivo Jasper Joren Kaspar Lambert Leofric Lorenz Magnus Marcus "
       "Matthias Milo Nico Odo Orin Osric Oswin Otto Peter Quentin Ralf Robin Roland Rufus Silas Stefan Theo Thomas "
       "Ulric Victor Walter Wilbur").split()
WOMEN = ("Ada Agnes Alma Anya Astrid Beatrix Berta Bridget Britta Cara Celia Clara Cora Dagny Delia Edith Elin Ella "
         "Elsbeth Emma Erna Freya Gerda Gwen Hanna Hazel Helga Hilda Ida Ingrid Iris Ivy Johanna Juna Karin Katrin "
         "Lena Lotte Lucia Mabel Maren Matilda Nell Nora Olga Petra Rosa Runa Sigrid Solveig Tess Thea Tilda Ursula "
         "Vera Wilma Yara Zelda").split()
# Roles of people who may walk into any tale (fishermen and ferrymen only where one is asked for). The dialogue cast (talk.py) has roles of its own.
ROLES = ("shepherd tinker weaver potter carpenter fisherman farmer hunter baker cobbler tailor ferryman peddler "
         "soldier sailor woodcutter mason candlemaker saddler beekeeper gardener scribe dyer cooper glassblower "
         "charcoal-burner thatcher wheelwright clockmaker stonecutter").split()
ROLES_FOR_HIM_ONLY = {"fisherman", "ferryman"}
TRAITS = ("young quiet cheerful clever patient stubborn kindly proud shy bold honest tired careful restless thin tall "
          "short round grey-haired red-haired freckled broad-shouldered soft-spoken sharp-eyed").split()
TOWNS = ("Alderbrook Harrow Fenwick Millbrook Oakham Stonebridge Thornbury Greywater Ashford Elmsley Redhill Dunmere "
         "Birchwood Saltmarsh Highfield Wexley Brackenford Northwick").split()
TAVERN_ADJECTIVES = ("Gilded Golden Silver Red Blue Green Black White Merry Sleepy Laughing Dancing Crooked Rusty Old "
                     "Lucky").split()
TAVERN_NOUNS = "Goose Stag Fox Boar Lantern Kettle Barrel Anchor Horse Raven Badger Owl Hare Salmon Wheel Crown".split()

# adjective, what the weather does now, what is true when it is over, seasons it belongs to
WEATHERS = (
    ("rainy", "rain [drummed on the roof|ran down the windows|fell on the thatch|dripped from the eaves]",
     "the rain had stopped", "spring summer autumn"),
    ("snowy", "snow [fell softly on the street|lay deep on the roofs|blew against the door]",
     "the snow had stopped falling", "winter"),
    ("windy", "the wind [howled in the chimney|shook the shutters|pulled at the sign|whistled under the door]",
     "the wind had died down", "spring autumn winter"),
    ("foggy", "fog [crept up from the river|hid the street|lay over the fields]", "the fog had lifted", "spring autumn"),
    ("warm", "[crickets sang in the grass|the sun went down red over the fields|the doors stood open to the soft air]",
     "the sky was clear and full of [stars|swallows]", "summer"),
    ("frosty", "frost [covered the windows|glittered on the road|made the gate creak]",
     "the frost had [melted|turned to dew]", "winter"),
    ("stormy", "thunder [rolled over the hills|shook the cups on the shelf|growled far away]",
     "the storm had passed", "spring summer autumn"),
)


class Person:
    def __init__(self, name, male, role, trait):
        self.name, self.male, self.role, self.trait = name, male, role, trait
        self.he, self.him, self.his, self.himself, self.man, self.lad = (
            ("he", "him", "his", "himself", "man", "lad") if male else
            ("she", "her", "her", "herself", "woman", "girl"))
        self.own = "his" if male else "hers"
        self.kind = f"a {trait} {role}"
        self.intro = f"{self.kind} named {name}"
        self.the = f"{name} the {role}"

    def __str__(self):
        return self.name


class Thing:
    """A noun with its article: str() is "silver ring", .a is "a silver ring", .the is "the silver ring"."""

    def __init__(self, name, **more):
        self.name, self.a, self.the = name, "a " + name, "the " + name
        self.__dict__.update(more)

    def __str__(self):
        return self.name


def coins(n, metal="silver"):
    return f"{NUMBERS[n]} {metal} coin{'' if n == 1 else 's'}"


# Parts that never meet in a tale share their people; the others' are apart, and so a name tells the part that it plays.
PARTS = ("ag", "bo", "h", "cx")
# Trades with people of their own (men, women): some tales want a bard, and dialogues have lines for each trade.
TRADES = {"stranger": (2, 2), "bard": (2, 2), "thief": (2, 2), "monk": (2, 0), "stable boy": (2, 0)} | {role: (1, 1) for role in (
    "healer elder cook messenger apprentice merchant trader smith painter brewer guard scout miller traveller pilgrim "
    "knight student").split() + ["bell founder"]}


def populate():
    """The world, the same in every tale -> (taverns [(tavern, town, keeper)], people by part, people by trade).

    Every tavern has its town and its keeper, every name its trade and its temper: what a tale must keep in mind is only
    who of them is in it. Names, trades and traits are dealt in turn.
    """
    names, traits = {True: iter(MEN), False: iter(WOMEN)}, iter(TRAITS * 9)
    taverns, parts, trades = [], {}, {}

    def born(male, role):
        return Person(next(names[male]), male, role, next(traits))

    for i, sign in enumerate(zip(TAVERN_ADJECTIVES, TAVERN_NOUNS)):
        keeper = born(i % 4 == 1, "innkeeper") if i else Person("Mira", False, "innkeeper", "warm")  # of talk.py
        taverns.append((" ".join(sign), TOWNS[i % len(TOWNS)], keeper))
    roles = [r for r in ROLES if r not in ROLES_FOR_HIM_ONLY]
    for i in range(10 * len(PARTS)):
        role = roles[i % len(roles)]
        who = born(i // len(PARTS) % 2 == 0, role)
        for slot in PARTS[i % len(PARTS)]:
            parts.setdefault(slot, []).append(who)
        trades.setdefault(role, []).append(who)
    trades["fisherman"] = [born(True, "fisherman")]
    for role, counts in TRADES.items():
        for male, n in zip((True, False), counts):
            trades.setdefault(role, []).extend(born(male, role) for _ in range(n))
    return taverns, parts, trades


TAVERNS, PEOPLE_BY_PART, PEOPLE_BY_TRADE = populate()


class Scene:
    """One tale's world: a seeded generator, an environment of facts, and the names already taken."""

    def __init__(self, rng):
        self.rng, self.env, self.taken = rng, {}, set()
        adjective, now, over, seasons = rng.choice(WEATHERS)
        self.set(season=rng.choice(seasons.split()), weather=adjective, weather_now=now, weather_over=self.say(over))
        self.enter(*rng.choice(TAVERNS))

    def enter(self, tavern, town, keeper):
        self.keeper = keeper
        self.set(tavern=tavern, town=town)

    def set(self, **facts):
        self.env.update(facts)

    def choice(self, items):
        return self.rng.choice(items)

    def chance(self, p):
        return self.rng.random() < p

    def person(self, slot, role=None, trait=None):
        """Casts somebody who is not yet in the tale into the environment, for the part `slot` or for a trade."""
        people = [self.keeper] if role == "innkeeper" else PEOPLE_BY_TRADE[role] if role else PEOPLE_BY_PART[slot]
        p = self.choice([p for p in people if p.name not in self.taken])
        self.taken.add(p.name)
        self.env[slot] = Person(p.name, p.male, p.role, trait) if trait else p
        return self.env[slot]

    def say(self, template):
        """Expands choices, then slots, until none is left. A slot's value may hold choices of its own."""
        text = template
        while True:
            text, n = CHOICE.subn(lambda m: self.choice(m.group(1).split("|")), text)
            if n:
                continue
            text, n = SLOT.subn(self.look_up, text)
            if not n:
                return text

    def look_up(self, m):
        value = self.env[m.group(2)]
        for attribute in m.group(3).split(".")[1:]:
            value = getattr(value, attribute)
        value = str(value)
        while CHOICE.search(value):
            value = CHOICE.sub(lambda c: self.choice(c.group(1).split("|")), value)
        return value[0].upper() + value[1:] if m.group(1) else value

    def tell(self, *beats):
        """Each beat is None (skipped), a template, or a list of templates of which one is told."""
        told = []
        for beat in beats:
            template = self.choice(beat) if isinstance(beat, (list, tuple)) else beat
            if template:
                told.append(self.say(template))
        return finish(" ".join(told))

    def maybe(self, p, *templates):
        return list(templates) if self.chance(p) else None


def finish(text):
    """Articles, capitals at sentence starts, and tidy spaces round paragraph breaks."""
    text = re.sub(r" *\n+ *", lambda m: "\n\n" if m.group().count("\n") > 1 else "\n", text.strip())
    text = text.replace(" ,", ",")
    text = re.sub(r"\b([Aa]) (?=([A-Za-z]+))", article, text)
    return re.sub(r"""((?:^|[.!?] |\n|[.]" )"?|[.!?]" "|: ")([a-z])""", lambda m: m.group(1) + m.group(2).upper(), text)


def article(m):
    word = m.group(2).lower()
    vowel = word[0] in "aeiou" and not word.startswith(SOUNDS_LIKE_YOU) or word.startswith(("hour", "honest"))
    return m.group(1) + ("n " if vowel else " ")

