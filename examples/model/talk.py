"""Dialogues: several named people talk, one line each:   Mira the innkeeper: "Welcome to the Gilded Goose."

Twelve regulars of the Gilded Goose in Alderbrook keep name, role and character in every dialogue; in the others the
same roles appear under other names. What makes a role a person stands in personas.py.
"""
from grammar import NUMBERS, TAVERNS, Person, Scene, coins
from personas import FAREWELLS, GREETINGS, OPINIONS, QUESTIONS, REGULARS
from tales import CULPRITS, HAUNTS, HEIRLOOMS, OBSTACLES, PLACES, RIDDLES, SONG_SUBJECTS, SPICES, WARES, WHY_DEAR

ANSWERS = ["[Ha!|Well said.|True enough.] {echo}", "{echo}", "[I knew you would say that.|That sounds like you, {other}.] {echo}", "[Hm.|So, so.] {echo}"]


class Talk(Scene):
    """A scene that collects spoken lines."""

    def __init__(self, rng):
        super().__init__(rng)
        self.lines = []
        self.home = self.chance(0.65)  # the regulars' own tavern
        if self.home:
            self.enter(*TAVERNS[0])
        self.set(cookname="Hobb" if self.home else "the cook", place1=self.choice(["mill", "bridge", "old quarry", "north road", "river", "abbey"]))

    def cast(self, *roles):
        """Gives each role (None: any other) a speaker."""
        people = []
        free = [r for _, _, r, _ in REGULARS if r not in roles]
        self.rng.shuffle(free)
        for role in roles:
            wanted = role or free.pop()
            name, male, role, trait = next(r for r in REGULARS if r[2] == wanted)
            if not self.home:
                p = self.person("_", role=role)
            else:
                p = Person(name, male, role, trait)
                self.taken.add(name)
            people.append(p)
        return people

    def traveller(self):
        """A guest, half the time a nameless one: that line is where a game's player speaks."""
        if self.chance(0.5):
            p = Person("traveller", True, "traveller", "tired")
            p.the = "Traveller"
            return p
        return self.person("_", role=self.choice(["traveller", "pilgrim", "knight", "peddler", "sailor", "student", "shepherd", "hunter"]))

    def line(self, who, *templates):
        self.set(speaker=who)
        self.lines.append(self.say("{speaker.the}: \"" + self.choice(templates) + "\""))

    def header(self, *people):
        """A sentence or two that sets the scene, most of the time."""
        if self.chance(0.25):
            return
        names = ["a traveller" if p.the == "Traveller" else p.the for p in people]
        together = ", ".join(names[:-1]) + " and " + names[-1]
        self.set(together=together)
        text = self.choice(["It is a {weather} {season} evening at the {tavern} in {town}.", "The {tavern} in {town}, a {weather} night in {season}.", "{season} in {town}. It is a {weather} evening at the {tavern}.", "A {weather} evening at the {tavern}."])
        text += self.choice([" {together} sit [by the fire|at the long table|in the corner].", " {together} are talking.", " {together} have [finished their soup|just met]."])
        self.lines.append(self.tell(text) + "\n")

    def opinion(self, who, topic):
        self.set(me=who)
        return self.say(self.choice(OPINIONS[who.role][topic]))

    def text(self):
        return self.tell("\n".join(self.lines))


def topics(t):
    """Small talk: one asks, the others say what people like them say."""
    people = t.cast(*[None] * t.choice([2, 3, 3, 4]))
    t.header(*people)
    if t.chance(0.7):
        for p in people[: t.choice([1, 2, len(people)])]:
            t.line(p, *GREETINGS[p.role])
    for topic in t.rng.sample(sorted(set(QUESTIONS) - {"name"}), t.choice([2, 2, 3])):
        t.rng.shuffle(people)
        if people[0] is t.env.get("speaker"):  # nobody speaks twice in a row
            people.append(people.pop(0))
        asker, rest = people[0], people[1:]
        t.set(other=rest[0])
        t.line(asker, *QUESTIONS[topic])
        for i, p in enumerate(rest):
            t.set(echo=t.opinion(p, topic), other=rest[i - 1] if i else asker)
            t.line(p, *ANSWERS)
        if len(rest) > 1 and t.chance(0.4):
            t.set(echo=t.opinion(asker, topic), other=rest[-1])
            t.line(asker, *ANSWERS)
    if t.chance(0.6):
        leaving = [p for p in people if p is not t.env["speaker"]]
        for p in leaving[: t.choice([1, 2])]:
            t.line(p, *FAREWELLS[p.role])


def visit(t):
    """A guest asks one or two people this and that: who they are first, if they have not met."""
    people = t.cast(*[None] * t.choice([1, 1, 2]))
    g = t.traveller()
    t.header(*people, g)
    topics = t.rng.sample(sorted(set(QUESTIONS) - {"name"}), t.choice([2, 3, 4]))
    if t.chance(0.7):
        t.line(people[0], *GREETINGS[people[0].role])
    if t.chance(0.5):
        topics.insert(0, "name")
    for topic in topics:
        p = t.choice(people)
        t.set(other=p)
        t.line(g, *QUESTIONS[topic])
        t.line(p, t.opinion(p, topic))
    if t.chance(0.5):
        t.line(g, "Thank you, {other}. [Good night.|I will remember that.]", "Good night, {other}.", "I should go to bed. Good night.")
        t.line(p, *FAREWELLS[p.role])


def order(t):
    (k,) = t.cast("innkeeper")
    g = t.traveller()
    dish, price = t.choice(["fish soup", "mutton stew", "goose pie", "bean stew", "onion soup", "roast pork", "apple cake"]), t.rng.randint(1, 5)
    room = t.rng.randint(2, 8)
    t.set(k=k, g=g, dish=dish, pd=coins(price), pr=coins(room), sum=coins(price + room), nd=NUMBERS[price], nr=NUMBERS[room], drink=t.choice(["ale", "cider", "milk", "honey beer", "mint tea", "water"]))
    t.header(k, g)
    t.line(k, *GREETINGS["innkeeper"])
    t.line(g, "Good evening. [I have walked all day|The road was long]. What is in the pot?", "Is there anything to eat?", "I could eat a horse. What do you have?")
    t.line(k, "{dish} today, for {pd} a bowl.", "There is {dish}. It costs {pd}.", "[My|Our] {dish} is the best in {town}. {pd}, bread and all.")
    t.line(g, "Then a bowl of {dish}, please, and a cup of {drink}.", "{dish} it is, and some {drink}.", "I will have the {dish}. And {drink}, if you have it.")
    t.line(k, "The {drink} is free [tonight|for travellers]. Do you need a room?", "Here you are: {dish}, and the {drink} is on the house. Will you stay the night?")
    t.line(g, "Yes, if there is a bed. What does it cost?", "How much is a room?", "A room would be good. The price?")
    t.line(k, "{pr} for the night.", "{pr}, with clean sheets.", "For you, {pr}.")
    t.line(g, "{nd} and {nr}, that makes {sum}. Here you are.", "So {sum} for everything. [Fair enough.|Here.]", "{pd} and {pr}. Here are {sum}.")
    t.line(k, "Thank you, {g}. [Up the stairs, the second door.|Sleep well!|Your {dish} is coming.]", "{sum}, just right. Eat while it is hot.")


def rumour(t):
    a, b, c = t.cast(None, None, None)
    sound, cause, _ = t.choice(HAUNTS)
    key = t.choice(["mill", "manor", "tower", "chapel", "farm", "crypt"])
    t.set(sound=sound, cause=cause, place=PLACES[key][0], at=PLACES[key][1], a=a, b=b, c=c)
    t.header(a, b, c)
    t.line(a, "Have you heard? There is a ghost {at}.", "Listen, both of you. Something walks {at}.", "They say {place} is haunted.")
    t.line(b, "A ghost? Who says so?", "What did you see?", "Nonsense. What makes you think so?")
    t.line(a, "I heard it myself last night: {sound}.", "My cousin went past and heard {sound}.", "First it was still, and then there was {sound}.")
    t.line(c, "There is always a reason, {a}. I went to look.", "I was there this morning, {a}. Do you want to know what it was?", "I have heard that too. So I went and looked.")
    t.line(b, "And what did you find, {c}?", "Well? Tell us, {c}!", "You were there? What was it?")
    t.line(c, "It was {cause}.", "Do not laugh. It was {cause}.", "Your ghost, {a}, was {cause}.")
    t.line(a, "So much for my ghost. The drinks are on me.", "I shall never tell anyone about this.", "Are you sure? It sounded so real.")
    t.line(b, *FAREWELLS[b.role])


def quest(t):
    g, k = t.cast(None, "innkeeper")
    h = t.traveller()
    fear, tool, hint, _, _, where = t.choice(OBSTACLES)
    key = t.choice(where.split())
    n = t.rng.randint(3, 9)
    more = n + t.rng.randint(1, 3)
    t.set(g=g, h=h, k=k, fear=t.say(fear), tool=tool, hint=hint, place=PLACES[key][0], at=PLACES[key][1], obj=t.choice(HEIRLOOMS), why=t.say(t.choice(WHY_DEAR)), n=coins(n), more=coins(more), nn=NUMBERS[n], m=NUMBERS[more])
    t.header(g, h, k)
    t.line(g, "You there, {h.role}. Do you want to earn some silver?", "You look brave, {h}. I need help.", "Forgive me, {h.role}. May I ask you something?")
    t.line(h, "That depends. What is it?", "I am listening.", "Speak, friend.")
    t.line(g, "My {obj} is lost {at}. It {why}.", "I lost my {obj} {at}. It {why}.")
    t.line(h, "Why do you not fetch it yourself?", "{place}? That is not far. Why ask me?")
    t.line(g, "Because {fear}.", "They say {fear}.", "I would, but {fear}.")
    t.line(h, "And what will you pay?", "What is your {obj} worth to you?", "Danger has a price, {g}.")
    t.line(g, "I will give you {n}.", "{n}. [It is all I can spare.|That is a fair price.]")
    if t.chance(0.5):
        t.line(h, "Make it {m}.", "{m}, and I leave tonight.", "For that? {m}.")
        t.line(g, "[Very well,|You drive a hard bargain. But yes,] {more}.", "{more}, then. But bring it back whole.")
    else:
        t.line(h, "{nn} is fair. I will go.", "Keep your purse shut until I am back. Agreed.", "Done.")
    t.line(k, "Take this {tool}, {h}. {hint}.", "Wait, {h}. You will need a {tool}. {hint}.")
    t.line(h, "Thank you, {k}. [I will bring it back.|A {tool} may save my skin.]", "I leave at dawn. Keep the soup warm.")


def song(t):
    b, k, o = t.cast("bard", "innkeeper", None)
    subject = t.choice(sorted(SONG_SUBJECTS))
    words = [w if i % 2 == 0 else w[0].lower() + w[1:] for i, w in enumerate(t.choice(SONG_SUBJECTS[subject]).split("|"))]
    t.set(b=b, k=k, o=o, subject=subject, verse=" ".join(words[:2]).rstrip(",;.") + ".", verse2=" ".join(words[2:]))
    t.header(b, k, o)
    t.line(k, "Play us something, {b}!", "{b}, the room is too quiet. A song!", "Is that your lute I see? Play, {b}!")
    t.line(b, "Gladly. What shall it be about?", "For you, anything. Happy or sad?", "What would you like to hear?")
    t.line(o, "Sing about {subject}.", "The one about {subject}, please.", "I want to hear about {subject}.")
    t.line(b, "{verse}")
    t.line(k, "Go on!", "Lovely. And then?", "Hush, everyone, there is more.")
    t.line(b, "{verse2}")
    t.line(o, "That was [beautiful|almost worth a coin|too short]. Here is a penny for you.", "My mother used to sing that.", "Not bad, {b}. Not bad at all.")
    t.line(b, "Thank you, {o}. I have [ninety|a hundred] more.", "I wrote it in one night and lost it for a year.", "You are too kind.")


def haggle(t):
    (m,) = t.cast("merchant")
    g = t.cast(t.choice(["smith", "cook", "miller", "guard", "stable boy"]))[0]
    ask = t.rng.randint(8, 16)
    low = t.rng.randint(2, ask - 5)
    deal = t.rng.randint(low + 1, ask - 1)
    t.set(m=m, g=g, ware=t.choice(WARES), ask=coins(ask), low=coins(low), deal=coins(deal))
    t.header(m, g)
    t.line(m, "Look here, {g}. A fine {ware}!", "{g}, my friend! I kept this {ware} just for you.", "Do you need a {ware}, {g}?")
    t.line(g, "How much is that {ware}?", "What do you want for it?", "I might. The price?")
    t.line(m, "{ask}. [It came from the far south.|There is no other like it.]", "Only {ask}.", "For anyone else, twenty. For you, {ask}.")
    t.line(g, "{ask}? I will give you {low}.", "Too much. {low}.", "I have {low} and not a penny more.")
    t.line(m, "You are robbing me. {deal}, and it is yours.", "My poor children! {deal}.", "{deal}. That is my last word.")
    t.line(g, "{deal}. [Fine.|Done.|Here.]", "All right, {deal}. But throw in a [ribbon|bag of nuts].", "Hm. {deal} it is.")
    t.line(m, "A pleasure, {g}. The {ware} is yours.", "You will not be sorry.", "Sold! And now a drink on it.")


def guess(t):
    a, b, c = t.cast(None, None, None)
    q, ans, wrong = t.choice(RIDDLES)
    t.set(a=a, b=b, c=c, q=q, ans=ans, wrong=wrong)
    t.header(a, b, c)
    t.line(a, "Here is a riddle for you. {q}", "Who likes riddles? {q}", "Listen, {b}. {q}")
    t.line(b, "{wrong}?", "Easy. {wrong}.", "That is not hard. {wrong}.")
    t.line(a, "No. Try again.", "Wrong, {b}! What do you say, {c}?", "Not that, no.")
    t.line(c, "{ans}.", "I know it. {ans}!", "{ans}. [My grandmother told me that one.|Was it not?]")
    t.line(a, "Right, {c}! [Who told you?|You are too clever for me.]", "{ans} it is.", "Yes! {c} wins.")
    t.line(b, "I would have said that next.", "Another one!", "I want a harder one.")


def lost(t):
    c, a, b = t.cast("cook", None, None)
    trace, who, found, why = t.choice(CULPRITS)
    t.set(a=a, b=b, c=c, spice=t.choice(SPICES), trace=trace, who=who, why=why)
    t.header(c, a, b)
    t.line(c, "Who took my {spice}?", "My {spice} is gone! Nobody leaves this room.", "Someone has stolen the {spice}.")
    t.line(a, "Not I, {c}. [I was here all evening.|I do not even like {spice}.]", "When did you see it last, {c}?", "Did you look behind the flour?")
    t.line(c, "It stood on the shelf at noon. Now there is only {trace}.", "All I found was {trace}.", "The jar is gone, and in its place there is {trace}.")
    t.line(b, "{trace}? Then I know who it was.", "Let me think. {trace}. That must be {who}!", "Show me. Yes. {trace}.")
    t.line(a, "Who, {b}?", "Do not keep us waiting, {b}.", "And who leaves that behind?")
    t.line(b, "It was {who}. {why}.", "{who}, of course. {why}.")
    t.line(c, "[Hm.|I see.] Then I will not shout. Much.", "Thank you, {b}. You get the first bowl.", "{who}! I should have known.")


def gate(t):
    (w,) = t.cast("guard")
    x = t.person("_", role=t.choice(["pilgrim", "peddler", "sailor", "student", "shepherd", "hunter", "weaver", "bard"]))
    n = t.rng.randint(1, 3)
    home, goal = t.rng.sample(["Harrow", "Fenwick", "Oakham", "Redhill", "Saltmarsh", "Wexley"], 2)
    t.set(w=w, x=x, home=home, goal=goal, n=NUMBERS[n], toll=coins(n, "copper"), bag=t.choice(["bread and a book", "a lute", "wool socks", "letters", "three cheeses", "seeds for my garden"]))
    if t.chance(0.6):
        t.lines.append(t.say("[The north gate of {town}, a {weather} night.|It is a {weather} evening at the gate of {town}.|A {weather} {season} night. {w.the} stands at the gate of {town}.]") + "\n")
    t.line(w, "Halt! Who goes there?", "Stop. Name and business.", "Who are you, and where do you come from?")
    t.line(x, "{x}, a {x.role} from {home}.", "My name is {x}. I am a {x.role}, and I come from {home}.")
    t.line(w, "And where are you going, {x}?", "{home} is far. Where to?", "A {x.role}, hm? Where are you going?")
    t.line(x, "To {goal}, [to see my sister|to find work|for the festival].", "{goal}, if my boots last.")
    t.line(w, "What is in the bag?", "Open the bag.", "And what do you carry?")
    t.line(x, "Only {bag}.", "{bag}, nothing else.", "See for yourself. {bag}.")
    t.line(w, "{bag}, indeed. The toll is {toll}.", "Hm. {toll} for the gate.")
    t.line(x, "Here, {toll}. Where can I sleep?", "{n}? Very well. Is there an inn?")
    t.line(w, "The {tavern} is straight ahead. Stay out of trouble, {x}.", "Go to the {tavern}. And do not feed the goose.")


TALKS = (topics, topics, topics, topics, topics, visit, visit, visit, visit, order, rumour, quest, quest, song, haggle, guess, lost, gate)


def dialogue(rng):
    t = Talk(rng)
    t.choice(TALKS)(t)
    return t.text()
