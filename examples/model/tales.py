"""The tales. Each function decides what is true in its little world, then tells it beat by beat."""
from grammar import NUMBERS, Thing, coins

P = "\n\n"

OPEN = [
    "It was a {weather} {season} evening in {town}, and the {tavern} was [full|crowded|half empty|warm and loud].",
    "One {weather} night in {season}, {weather_now}, and the {tavern} was [bright|the only house with a light|full of talk].",
    "On a {weather} evening, [people came early to|nobody wanted to leave|every chair was taken in] the {tavern} in {town}.",
    "{weather_now}. Inside the {tavern}, the fire [crackled|burned low|was warm] and the cups were [full|never empty|passed round].",
    "The {tavern} stood [at the edge of {town}|by the bridge in {town}|on the market square of {town}]. That evening {weather_now}.",
    "Once upon a time, [in the town of|in a small town called] {town}, there was a tavern [named|called] the {tavern}.",
    "In {town} there is a tavern called the {tavern}, and [people still tell this story there|this is what happened there one {season}].",
    "{season} had come to {town}. {weather_now}, and the {tavern} smelled of [fresh bread|wood smoke|apple cake|onion soup|roast meat].",
    "There was [once|long ago] a {season} so {weather} that all of {town} [came to|sat in] the {tavern} [every night|to keep company].",
    "The [tables|benches] of the {tavern} were [full|crowded] that night. Outside, {weather_now}.",
    "Nobody in {town} [forgot|ever forgot] that {weather} evening at the {tavern}.",
    "Late one {weather} evening, when {weather_now}, the door of the {tavern} [opened|swung open|creaked].",
]
CLOSE = [
    "By morning {weather_over}.",
    "Outside, {weather_over}, and the street was quiet.",
    "And when {weather_over}, everyone went home [happy|smiling|with a lighter heart].",
    "They still [tell that story|talk about it] at the {tavern} on every {weather} evening.",
    "The fire burned low, and [one by one|slowly] the guests [went to bed|said good night].",
    "That night the lamps of the {tavern} [burned late|stayed lit until dawn].",
    "In {town} they say that [a good deed is never lost|a kind word costs nothing|a promise kept is worth more than silver].",
    "Everyone at the {tavern} [cheered|raised a cup|clapped].",
    "And so the evening ended [well|with a song|in laughter].",
    None,
]

HEIRLOOMS = ("silver ring|gold locket|copper kettle|blue cloak|wooden flute|brass key|red lantern|leather book|pearl comb|"
             "small harp|painted cup|green scarf|bone needle|silver bell|old fiddle|carved pipe|amber necklace|iron compass|"
             "glass marble|wool blanket|silver spoon|feathered hat|ivory chess piece|bronze mirror").split("|")
WHY_DEAR = ["belonged to my [mother|father|grandmother|grandfather]", "was a gift from my [sister|brother|oldest friend|teacher]",
            "is all I have left of my [mother|old home|grandfather]", "has been in my family for [a hundred years|three generations]"]

# what guards the way: what people fear, the tool, its use, what is met, how the tool settles it, places it suits
OBSTACLES = (
    ("a [fierce|huge|bad-tempered] [black|grey] dog guards the [gate|door]", "meaty bone", "Every dog likes a bone",
     "A huge dog [sprang up|stood in the way] and [growled|showed its teeth].",
     "{h} [threw|tossed] the meaty bone, and the dog [forgot to bark|lay down to chew it|wagged its tail].", "farm mill manor bridge"),
    ("it is as dark as a sack down there", "small lantern", "The dark is only dark until you light a lamp",
     "It was so dark inside that {h} could not see {h.his} own hand.",
     "{h} lit the small lantern, and the [shadows|darkness] [drew back|fled into the corners].", "cave cellar mine tower crypt"),
    ("the path has fallen away and the drop is deep", "long rope", "A good rope has saved better people than us",
     "The path ended at a steep drop. [Stones rolled down into the deep.|Far below, water rushed over rocks.]",
     "{h} tied the long rope to a [tree|rock] and climbed down [slowly|hand over hand].", "cliff quarry ravine well"),
    ("a troll sits there and lets nobody pass", "wooden whistle", "Trolls love music more than gold",
     "A troll [as big as a cart|with mossy shoulders] sat [across the path|on a stone] and [grunted|shook its fist].",
     "{h} played a tune on the wooden whistle. The troll [closed its eyes|began to hum|started to dance], and {h} [slipped|walked] past.",
     "bridge ravine cave hill"),
    ("wild bees have built their nest in the doorway", "smoking pipe", "Smoke makes bees sleepy",
     "A cloud of wild bees buzzed [in the doorway|round a nest as big as a barrel].",
     "{h} lit the smoking pipe and blew [soft clouds|grey rings] until the bees grew sleepy and [settled|went quiet].",
     "mill farm tower chapel"),
    ("the door has been locked for years", "rusty key", "This old key opens more than you would think",
     "The door was shut fast, and [ivy|rust] had grown over the lock.",
     "{h} turned the rusty key [twice|slowly], and the lock [clicked|groaned] open.", "tower manor cellar chapel crypt"),
    ("the marsh swallows anyone who steps off the path", "long pole", "Try the ground before you trust it",
     "[Black water|Green mud] lay on both sides, and the path was hard to see.",
     "{h} tested each step with the long pole and [came safely across|never once sank deeper than {h.his} boots].", "marsh island"),
    ("a hungry bear has come down from the hills", "jar of honey", "No bear ever said no to honey",
     "A brown bear [rose up on two legs|came out from behind a rock] and sniffed the air.",
     "{h} set down the jar of honey and stepped back. The bear [licked the jar clean|forgot everything else].", "forest hill cave quarry"),
    ("an angry goose chases everyone away", "bag of grain", "Feed a goose and it is your friend",
     "A white goose ran at {h}, [hissing|with its wings spread wide].",
     "{h} scattered the bag of grain, and the goose [stopped to eat|followed {h.him} like a puppy].", "farm mill island bridge"),
    ("a ghost [moans|sighs] there at night", "little bell", "Ghosts cannot bear a cheerful bell",
     "Something [pale|white] moved in the dark and moaned.",
     "{h} rang the little bell. The ghost [gave a sad sigh|bowed its head], [thanked {h.him} for the music|smiled] and faded away.",
     "crypt chapel manor mill tower"),
    ("thorns have grown over the way, thick as a wall", "sharp knife", "A sharp blade makes a short road",
     "A wall of thorns stood before {h}, [higher than a house|thick as a hedge].",
     "With the sharp knife {h} cut [a narrow path|branch after branch] until the way was clear.", "forest manor chapel garden"),
    ("a giant sleeps there, and he wakes at every step", "pair of soft shoes", "Walk softly and let the giant dream",
     "There lay the giant, [snoring like thunder|as long as three carts], right across the way.",
     "{h} put on the pair of soft shoes and crept past on the tips of {h.his} toes.", "hill cave forest ravine"),
    ("the crows there steal whatever they can carry", "shiny button", "Give a crow something that shines",
     "Crows [flew up in a black cloud|cried from every branch] and pulled at {h.his} hat.",
     "{h} threw the shiny button into the grass, and all the crows [flew after it|began to quarrel over it].",
     "forest tower farm hill garden"),
    ("the wind up there could blow a cow away", "heavy cloak", "A heavy cloak and a low head beat any wind",
     "The wind [tore at {h.his} clothes|roared] so hard that {h} could hardly stand.",
     "{h} pulled the heavy cloak tight, [bent low|put {h.his} head down] and went on step by step.", "hill cliff tower"),
)
# name with article, how to be there, the way, what is seen
PLACES = {
    "mill": ("the old mill", "at the old mill", "along the stream", "The mill wheel stood still, [green with moss|half under water]."),
    "farm": ("the empty farm", "at the empty farm", "across the fields", "The barn door hung [open|on one hinge]."),
    "manor": ("the ruined manor", "in the ruined manor", "up the long avenue", "Ivy covered the walls, and the windows were dark."),
    "bridge": ("the stone bridge", "under the stone bridge", "down the river road", "The river [ran fast and brown|whispered] beneath the bridge."),
    "cave": ("the wolf cave", "in the wolf cave", "up the goat path", "Cold air came out of the cave."),
    "cellar": ("the abbey cellar", "in the abbey cellar", "past the old orchard", "Worn steps led down under the abbey."),
    "mine": ("the silver mine", "in the silver mine", "up into the hills", "Old carts stood on their rails before the mine."),
    "tower": ("the watchtower", "in the watchtower", "through the heather", "The tower leaned a little, like a tired man."),
    "crypt": ("the king's crypt", "in the king's crypt", "through the churchyard", "Stone angels watched over the door."),
    "cliff": ("the sea cliff", "on the sea cliff", "along the shore", "Gulls cried, and the sea was grey far below."),
    "quarry": ("the old quarry", "in the old quarry", "along the cart track", "White stones lay about like giant teeth."),
    "ravine": ("the deep ravine", "in the deep ravine", "over the ridge", "Ferns grew on the rocks, wet and green."),
    "well": ("the dry well", "in the dry well", "past the last houses", "The well was ringed with mossy stones."),
    "hill": ("the bald hill", "on the bald hill", "up the sheep track", "From there {h} could see all of {town}."),
    "chapel": ("the forest chapel", "in the forest chapel", "under the old oaks", "The little chapel had lost half its roof."),
    "marsh": ("the marsh", "in the marsh", "out past the willows", "Frogs [called|sang] among the reeds."),
    "island": ("the heron island", "on the heron island", "along the lake", "Herons stood still in the shallow water."),
    "forest": ("the black forest", "in the black forest", "past the last field", "The trees stood close, and it was very still."),
    "garden": ("the walled garden", "in the walled garden", "down the lane", "Roses had run wild over the walls."),
}


def place(s, names=None):
    key = s.choice(sorted(names or PLACES))
    the, at, way, sight = PLACES[key]
    s.set(place=the, at=at, way=way, sight=sight)
    return key


def obstacle(s):
    """Chooses what stands in the way, a place it suits, and the tool that settles it."""
    fear, tool, hint, meet, solve, where = s.choice(OBSTACLES)
    place(s, where.split())
    s.set(fear=s.say(fear), tool=Thing(tool), hint=hint, meet=meet, solve=solve)


def keeper(s):
    s.person("k", role="innkeeper")


GIVES_TOOL = [
    "{k}, the innkeeper, [gave|handed|lent] {h.him} {tool.a}. \"{hint},\" {k.he} said.",
    "Before {h} left, {k} the innkeeper [put {tool.a} into {h.his} hands|brought {tool.a} from the back room]. \"{hint}.\"",
    "\"Take this,\" said {k} the innkeeper, and gave {h} {tool.a}. \"{hint}.\"",
    "{k}, who kept the tavern, [nodded|thought for a moment]. \"You will need {tool.a},\" {k.he} said. \"{hint}.\"",
]
JOURNEY = [
    "{h} [walked|set out|went] {way} [until {h.he} came to {place}|, all the way to {place}]. {sight}",
    "At [dawn|first light|sunrise] {h} took the road {way}. [Soon|By noon|After an hour] {h.he} stood before {place}. {sight}",
    "The next [morning|day] {h} went {way} to {place}. {sight}",
    "{h} did not wait. {^h.he} hurried {way} and reached {place} [before dark|as the moon rose]. {sight}",
]


def lost_heirloom(s):
    keeper(s)
    s.person("g"), s.person("h")
    obstacle(s)
    n = s.rng.randint(3, 12)
    thing = Thing(s.choice(HEIRLOOMS))
    s.set(obj=thing, why=s.say(s.choice(WHY_DEAR)), pay=coins(n), spot=s.choice([
        "under a flat stone", "behind a pile of stones", "under a broken plank", "in a rusty bucket", "among dry leaves",
        "half buried in sand", "in an old nest", "beside a rotten log"]))
    return s.tell(
        OPEN,
        ["{g}, {g.kind}, sat [alone|by the fire|in the corner] and [sighed|stared into {g.his} cup|ate nothing].",
         "In the corner sat {g}, {g.kind}. [{^g.his} eyes were red.|{^g.he} had not touched {g.his} supper.|{^g.he} looked sad.]",
         "Only one guest did not smile. It was {g}, {g.kind}."],
        ["\"What [is wrong|troubles you]?\" asked {h}, {h.kind}.",
         "{h}, {h.kind}, [sat down beside {g.him}|pulled up a chair]. \"Why so sad, friend?\"",
         "\"You look as if it rained in your soup,\" said {h}, {h.kind}."],
        ["\"I have lost my {obj},\" said {g}. \"It {why}. I [left|dropped] it {at}.\"",
         "\"My {obj} is gone,\" said {g}. \"It {why}. [A thief hid it|I lost it] {at}.\"",
         "\"It is my {obj},\" {g} [answered|said softly]. \"It {why}, and now it lies somewhere {at}.\""],
        ["\"Then let us fetch it,\" said {h}. {g} shook {g.his} head. \"They say {fear}.\"",
         "\"Why not go and look?\" asked {h}. \"Because {fear},\" said {g}.",
         "\"Nobody dares to go there,\" [{g.he} went on|added {g}], \"for {fear}.\""],
        ["\"Bring it back,\" said {g}, \"and I will [pay|give] you {pay}.\" \"[Done|Agreed|It is a bargain],\" said {h}.",
         "\"I can pay {pay}, no more,\" said {g}. {h} [held out {h.his} hand|smiled]. \"That is fair.\"",
         "{g} put {g.his} purse on the table. \"{^pay} for the one who brings it back.\" \"I will go,\" said {h}."],
        P, GIVES_TOOL, JOURNEY, "{meet}", "{solve}",
        ["There, {spot}, lay the {obj}.", "And {spot}, {h} [saw|found] what {h.he} had come for: the {obj}.",
         "{h} searched [everywhere|high and low|for a long time]. At last, {spot}, {h.he} found the {obj}."],
        P,
        ["[When {h} came back to|That evening in] the {tavern}, {g} [jumped up|could not believe it]. \"My {obj}!\"",
         "{h} [laid|set] the {obj} on the table. {g} [wept for joy|laughed and cried at once|held it to {g.his} heart].",
         "\"Is this yours?\" {h} asked, and [held out|showed] the {obj}. {g} [could not speak|smiled for the first time in days]."],
        ["{g} [counted out|paid] {pay}, just as promised.", "\"{^pay},\" said {g}, \"as I promised.\"",
         "{g} [pushed|slid] {pay} across the table, but {h} [kept only one|bought soup for everyone with them]."],
        s.maybe(0.5, "{h} gave the {tool} back to {k}. \"It served me well,\" {h.he} said.",
                "\"And here is your {tool},\" {h} told {k}.", "\"How did you do it?\" asked {k}. \"With your {tool},\" said {h}."),
        CLOSE)


SONG_SUBJECTS = {
    "a lost ship": ("The ship went out on the morning tide,|And never a sail came home;|She sleeps where the silver fishes glide,|Under the salt white foam.",),
    "a harvest moon": ("The moon came up on the barley field,|As round as a loaf of bread;|And every heart was by music healed,|And every mouth was fed.",),
    "an old soldier": ("He hung his sword on the kitchen wall,|And planted a row of beans;|Now the robin sings in the soldier's hall,|Of peace and what it means.",),
    "a miller's daughter": ("The miller's girl had flour in her hair,|And a laugh like a running stream;|The prince rode by and he stopped to stare,|As if he walked in a dream.",),
    "a grey wolf": ("Grey wolf, grey wolf, the snow is deep,|The moon is cold and thin;|The shepherd has woken from his sleep,|And he will not let you in.",),
    "a king without a crown": ("The king gave his crown for a bowl of stew,|His cloak for a place by the fire;|And never a richer man I knew,|Nor any who sat up higher.",),
    "the long road home": ("The road is long and the road is wide,|And the stones are hard and grey;|But a lamp is lit on the other side,|And it calls me home today.",),
    "a dragon in love": ("The dragon sighed and the forest burned,|He wept and the river ran high;|For the star that he loved had never returned,|A word from the cold night sky.",),
    "a tired mother": ("Hush, little one, for the day is done,|The hens are asleep in the hay;|The moon keeps watch in place of the sun,|And dreams are on the way.",),
    "the first snow": ("The first snow falls on the roof and the stone,|It falls on the rich and the poor;|And nobody needs to sit alone,|When there is a light at the door.",),
}


def verse(s, subject, lines=4):
    words = s.choice(SONG_SUBJECTS[subject]).split("|")[:lines]
    words = words[:1] + [w[0].lower() + w[1:] for w in words[1:]]
    return "\"" + " ".join(words).rstrip(",;") + ("\"" if words[-1].endswith(".") else ".\"")


def song_contest(s):
    keeper(s)
    a, b = s.person("a", role="bard"), s.person("b", role="bard")
    x, y = s.rng.sample(sorted(SONG_SUBJECTS), 2)
    win, lose = (a, b) if s.chance(0.5) else (b, a)
    s.set(x=x, y=y, win=win, lose=lose, won_with=x if win is a else y, prize=s.choice([
        "a free supper", "the best room", "a barrel of cider", "a week of free soup", coins(5), "a new hat", "a goose pie"]),
        ia=s.choice(["lute", "harp", "fiddle"]), ib=s.choice(["flute", "drum", "pipes"]))
    return s.tell(
        OPEN,
        ["Two bards had come on the same night: {a}, who played the {ia}, and {b}, who played the {ib}.",
         "By the fire sat {a} with {a.his} {ia}. Then {b} came in with {b.his} {ib}, and [both frowned|the room went quiet].",
         "{a} the bard tuned {a.his} {ia}. Across the room {b} the bard polished {b.his} {ib}."],
        ["\"There is room for only one song at a time,\" said {k}, the innkeeper. \"So let it be a contest.\"",
         "\"I am the better singer,\" said {a}. \"[We shall see|Prove it],\" said {b}. {k}, the innkeeper, [laughed|clapped].",
         "\"Let the guests choose the best song,\" said {k}, the innkeeper."],
        ["The prize was {prize}.", "\"The winner gets {prize},\" {k} [promised|said].", "{k} offered {prize} to the winner."],
        P,
        ["{a} went first and sang of {x}.", "First came {a}, with a song about {x}.", "{a} struck the {ia} and sang about {x}."],
        verse(s, x, s.choice([2, 4])),
        ["The guests [clapped|tapped their feet|nodded].", "Someone [wiped an eye|whistled]. It was a fine song.", None],
        ["Then {b} [lifted|took] the {ib} and sang of {y}.", "{b} [waited until it was still|took a deep breath] and gave them a song about {y}."],
        verse(s, y, s.choice([2, 4])),
        P,
        ["[For a moment nobody spoke.|Then the whole room stood up.] The song about {won_with} had won.",
         "The guests [banged their cups|threw their hats in the air] for {win}. The song of {won_with} was the best.",
         "\"I cannot choose,\" said {k}. But the guests could. They wanted to hear about {won_with} again."],
        ["{win} took {prize} and [bowed|smiled]. \"But {lose} sings better than I do when it is late,\" {win.he} said.",
         "So {win} won {prize}, and {win.he} shared it with {lose}.",
         "{lose} [held out {lose.his} hand|bowed]. \"Well sung,\" {lose.he} said. {win} [shared|split] {prize} with {lose.him}."],
        ["They played together until [dawn|midnight], {ia} and {ib}.", "From that night on, {a} and {b} travelled [as friends|together].",
         "And the last song they sang as two."],
        CLOSE)


RANKS = ("sevens", "eights", "nines", "tens", "knaves", "queens", "kings")


def card_game(s):
    keeper(s)
    a, b = s.person("a"), s.person("b")
    low, high = sorted(s.rng.sample(range(len(RANKS)), 2))
    honest = s.chance(0.6)
    s.set(stake=Thing(s.choice(HEIRLOOMS)), why=s.say(s.choice(WHY_DEAR)), bet=coins(s.rng.randint(4, 15)),
          low="three " + RANKS[low], high="three " + RANKS[high])
    start = s.tell(
        OPEN,
        ["{a}, {a.kind}, and {b}, {b.kind}, [sat|were] at cards.",
         "At the round table, {a} the {a.role} played cards with {b} the {b.role}.",
         "\"One more game,\" said {a}, {a.kind}. {b}, {b.kind}, [shuffled|dealt] the cards."],
        ["{a} had lost all [{a.his} coins|evening], so {a.he} put {a.his} {stake} on the table. \"It {why},\" {a.he} said.",
         "\"I have no coins left,\" said {a}. \"But here is my {stake}. It {why}.\"",
         "{a} [bit {a.his} lip|thought for a long time] and laid down {a.his} {stake}."],
        ["{b} put {bet} beside it.", "\"Against it I set {bet},\" said {b}.", "{b} counted out {bet}."],
        ["The room went quiet.", "{k}, the innkeeper, [stopped wiping the bar|came to watch].", "Even the cat [looked up|came to see]."],
        P)
    if honest:
        rest = s.tell(
            ["{a} turned over {low}. [It was a good hand.|{^a.he} smiled.] Then {b} showed {high}.",
             "\"{^low},\" said {a}. {b} [sighed|waited a moment]. \"{^high},\" {b.he} said, and laid them down."],
            ["The {stake} belonged to {b} now.", "So {b} won the {stake}, and {a} went [pale|white].",
             "{a} [stood up slowly|looked at the {stake} one last time]. \"It is yours,\" {a.he} said."],
            ["But {b} pushed the {stake} back. \"[I play for fun|I have no use for it]. Keep it, and buy me [a soup|a drink|breakfast].\"",
             "{b} [turned it in {b.his} hands|thought of {b.his} own mother]. \"A thing like this should stay with you,\" {b.he} said, and gave the {stake} back.",
             "The next morning {a} found the {stake} [on {a.his} plate|beside {a.his} bed]. {b} had left it there [and gone|without a word]."],
            ["{a} never played for the {stake} again.", "{a} and {b} have been friends ever since.",
             "\"You won the game,\" said {k}, \"and something better as well.\""])
    else:
        rest = s.tell(
            ["{b} laid down {high}. {a} had only {low}.", "\"{^low},\" said {a}. \"{^high},\" said {b} [quickly|with a grin]."],
            ["But {k} saw [a fourth card|another card] [fall from {b.his} sleeve|under {b.his} chair]. \"[Cheat|Shame on you]!\" {k.he} cried.",
             "\"Wait,\" said {k}. \"I count [six|too many] cards in your hand, {b}.\""],
            ["{b} turned red. {^b.he} gave back the {stake} and [paid {a} {bet}|left {bet} on the table].",
             "Everyone looked at {b}. {^b.he} pushed the {stake} and {bet} over to {a}."],
            ["\"I am sorry,\" {b.he} said. \"I was [hungry|afraid to lose].\" {k} [brought {b.him} a bowl of soup|let {b.him} wash the dishes for a week].",
             "{k} [pointed at the door|took the cards away]. \"Come back when you can play fair.\" And a month later {b} did."],
            ["{a} kept the {stake} and [never gambled again|the coins].", "{a} bought [everyone|the whole room] a drink and took the {stake} home."])
    return start + "\n\n" + rest + tail(s)


def tail(s):
    text = s.tell(CLOSE)
    return " " + text if text else ""


STRANGERS = (
    ("a clockmaker", "mended the old clock, which had been silent for ten years", "The clock has never stopped since"),
    ("a healer", "made a tea that cured {k}'s cough", "{k} never coughed again"),
    ("a painter", "painted a new sign for the door in the night", "The new sign is the finest in {town}"),
    ("the duke's messenger", "wrote a letter, and the duke sent a cart of firewood", "There was wood enough for three winters"),
    ("a toymaker", "carved a wooden horse for {k}'s child", "The child slept with the horse every night"),
    ("a stonemason", "mended the cracked chimney before breakfast", "The chimney has never smoked since"),
    ("a famous cook", "baked a pie that no one there ever forgot", "People still come from {town} and beyond to taste it"),
    ("a roofer", "climbed up at dawn and mended the leaking roof", "Not a drop has come in since"),
    ("a fiddler", "played so well that people came from every street", "It was the best night the {tavern} ever had"),
    ("a ship's captain", "sent a barrel of oranges from the south", "Nobody there had ever tasted one before"),
    ("a well digger", "found sweet water behind the kitchen", "The new well has never run dry"),
    ("a bookbinder", "bound {k}'s torn recipe book in new leather", "Not one recipe has been lost since"),
)


def stranger(s):
    keeper(s)
    s.person("h"), s.person("x", role="stranger")
    craft, deed, after = s.choice(STRANGERS)
    s.set(craft=craft, deed=s.say(deed), after=s.say(after), food=s.choice(
        ["bowl of bean soup", "plate of warm bread", "piece of apple cake", "cup of hot milk", "bowl of mutton stew", "slice of cheese pie"]))
    return s.tell(
        OPEN,
        ["There was a knock. A stranger stood [on the step|in the door], [wet to the skin|shaking with cold|covered in dust].",
         "Then the door [opened|flew open], and a stranger came in with [a torn cloak|muddy boots|an empty bag].",
         "Near midnight a stranger [knocked|came to the door]. [{^x.his} boots had holes.|Nobody knew {x.his} face.]"],
        ["\"I have no money,\" said the stranger. \"[My name is|They call me] {x}.\"",
         "\"My name is {x},\" the stranger said. \"I cannot pay, but I am [cold|hungry|very tired].\"",
         "\"May I sit by your fire?\" {x.he} asked. \"I am {x}, and [my purse was stolen|I have not a penny].\""],
        ["{h}, {h.kind}, [frowned|laughed]. \"No coin, no chair,\" {h.he} said.", "\"Send {x.him} away,\" [whispered|said] {h}, {h.kind}.",
         "Some guests looked away. {h}, {h.kind}, [moved over to make room|shook {h.his} head]."],
        ["But {k}, the innkeeper, [brought|set down] a {food}. \"Eat first,\" {k.he} said. \"We can talk about money [later|another day].\"",
         "{k}, the innkeeper, [pulled a chair to the fire|took {x.his} wet cloak] and gave {x.him} a {food}.",
         "\"In my house nobody goes hungry,\" said {k}, the innkeeper, and brought a {food}."],
        ["{x} ate [slowly|every crumb] and slept [by the fire|on the bench|in the hay].", "{x} [thanked {k.him} with tears in {x.his} eyes|bowed] and ate.", None],
        P,
        ["Now {x} was {craft}. In return for the {food}, {x.he} {deed}.",
         "What nobody knew was this: {x} was {craft}. To say thank you, {x.he} {deed}.",
         "\"I have no silver,\" said {x}, \"but I am {craft}.\" And {x.he} {deed}."],
        ["{after}.", "{after}, and {k} smiles whenever {k.he} thinks of {x}.", "{after}. So a {food} was well paid."],
        ["{h} was ashamed. \"Next time I will [offer my chair|share my own supper],\" {h.he} said.",
         "\"You were right, {k},\" said {h}.", None],
        CLOSE)


SPICES = "pepper|saffron|salt|cinnamon|ginger|nutmeg|thyme|cloves|paprika|rosemary|mustard|honey".split("|")
DISHES = "fish soup|mutton stew|goose pie|bean stew|roast pork|plum cake|onion soup|rabbit stew|apple dumplings|spiced bread".split("|")
# the trace on the shelf, who left it, how they are caught, why it happened
CULPRITS = (
    ("a black feather", "the jackdaw", "The jackdaw sat on the roof beside the jar, [very pleased with itself|with one wing round it].", "It had only wanted the shiny lid"),
    ("a small paw print", "the kitchen cat", "Behind the flour sacks lay the kitchen cat, [sneezing|fast asleep], and beside her the jar.", "She had made a bed for her kittens there"),
    ("a muddy little footprint", "the cook's small son", "The cook's small son sat under the table with the jar [on his knees|in his arms].", "He had wanted to cook supper himself"),
    ("a tuft of white hair", "the goat", "The goat stood in the yard and chewed on the lid of the jar.", "Someone had left the kitchen door open"),
    ("a trail of crumbs", "a family of mice", "The crumbs led to a hole in the wall, and there stood the jar, too wide for the mice to pull through.", "The mice had liked the smell"),
    ("a wet ring on the wood", "the washerwoman", "The washerwoman had the jar among her soap. \"Is this not soap?\" she asked.", "She had lost her glasses that morning"),
    ("a blue thread", "the tailor", "The tailor had the jar in his sewing bag. \"I took it for my button jar,\" he said.", "The two jars looked just the same"),
    ("a smear of green paint", "the sign painter", "The sign painter had mixed a little of it into his paint, [to make it warm|for the colour].", "He gave back the rest and said he was sorry"),
)


def missing_spice(s):
    s.person("c", role="cook"), s.person("h")
    trace, who, found, why = s.choice(CULPRITS)
    s.set(spice=s.choice(SPICES), dish=s.choice(DISHES), trace=trace, who=who, found=found, cause=why,
          guest=s.choice(["the mayor", "the duke's cousin", "a wedding party", "the bishop", "forty hungry sailors", "a rich merchant"]))
    return s.tell(
        OPEN,
        ["In the kitchen, {c} the cook [let out a cry|threw up {c.his} hands]. \"My {spice} is gone!\"",
         "{c} the cook came out of the kitchen [as white as flour|in tears|red in the face]. \"Who took my {spice}?\"",
         "\"The jar of {spice} is gone,\" said {c} the cook."],
        ["\"And tonight {guest} will come for my {dish}.\"", "Without it there could be no {dish}, and {guest} would be there [in an hour|by nightfall].",
         "\"How can I make {dish} without {spice}? It is for {guest}!\""],
        ["{h}, {h.kind}, [put down {h.his} cup|stood up]. \"Let me look,\" {h.he} said.", "\"Things do not walk away,\" said {h}, {h.kind}. \"Show me the shelf.\"",
         "{h}, {h.kind}, loved [a riddle|a good mystery]. \"May I help?\""],
        P,
        ["On the shelf, where the jar had stood, {h} found {trace}.", "{h} [bent down|lit a candle] and looked closely. There was {trace} on the shelf.",
         "The shelf was empty, but {h} saw {trace}."],
        ["\"{c}, who was in the kitchen today?\" \"[Only the baker|The fishwife|Only me], and [she saw nothing|nobody else]. I went to the well [for a moment|at noon].\"",
         "First they asked the [stable boy|dishwasher], but he had been [at the market|with the horses] all day.",
         "\"Was it the [baker|brewer]?\" asked {c}. \"No,\" said {h}. \"He leaves [flour|a smell of hops] wherever he goes.\"", None],
        ["\"{trace},\" said {h}. \"I think I know who it was.\"", "{h} [smiled|scratched {h.his} chin]. \"I know who leaves {trace},\" {h.he} said.",
         "Then {h} [laughed|snapped {h.his} fingers]. \"Come with me!\""],
        "{found}",
        ["It was {who} after all. {cause}.", "{cause}. Nobody could be angry with {who}.", "So {who} was the thief! {cause}."],
        P,
        ["{c} [ran|hurried] back to the pot with the {spice}, and the {dish} was [ready in time|better than ever].",
         "The {dish} got its {spice}, and {guest} [asked for more|ate three plates|praised it all evening]."],
        ["{h} got the [first|biggest] plate.", "\"You eat for free tonight,\" said {c} to {h}.", "And {who} got a [small plate|little bit] too."],
        CLOSE)


WARES = ("wool cloak|pair of boots|copper pot|brown mule|bag of apples|clay jug|fishing net|round cheese|red carpet|lame pony|"
         "iron stove|painted chest|walking stick|feather bed|hunting horn|sack of flour|barrel of herring|glass lamp|milking stool").split("|")
FLAWS = ["[a scratch|a dent] on one side", "a smell of [fish|smoke]", "seen better days", "a stubborn look", "a patch on it", "come a long way"]


def bargain(s):
    a, b = s.person("a", role=s.choice(["peddler", "merchant", "trader"])), s.person("b")
    keeper(s)
    ask = s.rng.randint(9, 18)
    offer = s.rng.randint(2, ask - 6)
    ask2, offer2 = ask - s.rng.randint(1, 2), offer + s.rng.randint(1, 2)
    deal = s.rng.randint(offer2 + 1, ask2 - 1)
    s.set(ware=Thing(s.choice(WARES)), ask=coins(ask), offer=coins(offer), ask2=NUMBERS[ask2], offer2=NUMBERS[offer2],
          deal=coins(deal), flaw=s.say(s.choice(FLAWS)), extra=s.choice(["a bowl of soup", "a cup of cider", "a song", "a good story", "breakfast", "a bag of nuts"]))
    return s.tell(
        OPEN,
        ["{a} the {a.role} had {ware.a} to sell, and {b}, {b.kind}, wanted it [badly|very much].",
         "\"Look at this fine {ware},\" said {a} the {a.role}. {b}, {b.kind}, [came closer|put down {b.his} spoon].",
         "{b}, {b.kind}, needed {ware.a}. As luck would have it, {a} the {a.role} had one [in {a.his} cart|with {a.him}]."],
        ["\"How much?\" \"{^ask},\" said {a}.", "\"{^ask}, and it is yours,\" said {a}.", "{a} looked at {b}'s [boots|purse]. \"{^ask},\" {a.he} said."],
        ["\"{^ask}!\" cried {b}. \"It has {flaw}. I will give you {offer}.\"", "{b} [laughed|walked round it twice]. \"{^offer}, and not a penny more.\"",
         "\"For {ask} I could buy [the moon|a house]. {^offer},\" said {b}."],
        ["\"{^offer}? My children would [starve|weep]. {^ask2}.\"", "{a} [put a hand on {a.his} heart|groaned]. \"You hurt me. {^ask2}, because I like your face.\"",
         "\"It came over the mountains on my own back,\" said {a}. \"{^ask2}.\""],
        ["\"{^offer2},\" said {b}, and turned to go.", "\"{^offer2},\" {b} [answered|said], \"and that is robbery.\"", "{b} [shook {b.his} head|yawned]. \"{^offer2}.\""],
        P,
        ["{k}, the innkeeper, [could not listen any longer|laughed]. \"Meet in the middle! {^deal}, and I add {extra}.\"",
         "\"{^deal},\" said {k}, the innkeeper, from behind the bar, \"and {extra} for both of you.\"",
         "Then both were quiet. \"{^deal} and {extra},\" said {a} at last."],
        ["They [spat in their hands and shook|shook hands].", "{a} and {b} looked at each other and [nodded|began to laugh].", "\"Done!\" they said [together|at the same time]."],
        ["{b} paid {deal} and took the {ware}.", "{b} counted out {deal}, one by one, and the {ware} was {b.own}.", "So the {ware} was sold for {deal}."],
        ["\"I would have [paid|given] {ask},\" {b} [whispered|told {k}] later. \"And I would have taken {offer},\" [whispered|said] {a}.",
         "{b} went home [singing|happy] with the {ware}, and {a} had {deal} in {a.his} purse.",
         "Both thought they had won, and that is [the best kind of bargain|how a bargain should be]."],
        CLOSE)


RIDDLES = (
    ("What has teeth but cannot bite?", "A comb", "A saw"), ("What has a neck but no head?", "A bottle", "A shirt"),
    ("What runs all day but never gets tired?", "A river", "A horse"), ("What gets wetter the more it dries?", "A towel", "The rain"),
    ("What has hands but cannot clap?", "A clock", "A glove"), ("What goes up and never comes down?", "Your age", "Smoke"),
    ("What has an eye but cannot see?", "A needle", "A potato"), ("What can you break without touching it?", "A promise", "An egg"),
    ("What has a bed but never sleeps?", "A river", "A sick man"), ("What is full of holes but still holds water?", "A sponge", "A bucket"),
    ("The more you take away, the bigger it gets. What is it?", "A hole", "A debt"), ("What has legs but cannot walk?", "A table", "A statue"),
    ("What is yours, but your friends use it more than you?", "Your name", "Your purse"), ("What breaks when you speak its name?", "Silence", "Glass"),
    ("I follow you all day and leave you at night. What am I?", "Your shadow", "Your dog"), ("What has ears but cannot hear?", "A field of corn", "A wall"),
    ("What can fill a room and takes no space?", "Light", "Air"), ("What comes down but never goes up?", "Rain", "A stone"),
    ("I have cities but no houses, and rivers but no water. What am I?", "A map", "A dream"), ("What flies without wings?", "Time", "An arrow"),
    ("What eats and eats but dies when it drinks?", "Fire", "A camel"), ("What has a tongue but never talks?", "A shoe", "A bell"),
)


def riddle(s):
    keeper(s)
    s.person("x", role="stranger"), s.person("h"), s.person("o")
    question, answer, wrong = s.choice(RIDDLES)
    s.set(q=question, ans=answer, low=answer[0].lower() + answer[1:], wrong=wrong, wronglow=wrong[0].lower() + wrong[1:], prize=s.choice(
        [coins(s.rng.randint(2, 10)), "a gold button", "a bottle of plum wine", "a book of songs", "a ride to the city", "a fat goose"]))
    return s.tell(
        OPEN,
        ["An old {x.man} named {x} [sat by the fire|tapped {x.his} stick on the floor]. \"Who likes a riddle?\" {x.he} asked.",
         "{x}, an old traveller, [smiled into {x.his} cup|stood on a bench]. \"I have a riddle,\" {x.he} said.",
         "\"I pay for my supper with riddles,\" said {x}, an old traveller."],
        ["\"Whoever solves it gets {prize}.\"", "\"Solve it, and I will give you {prize}.\"", "{^x.he} laid {x.his} hand on the table. \"{^prize} to the one who knows the answer.\""],
        ["\"Listen well. {q}\"", "The room grew quiet. \"{q}\"", "\"Here it is: {q}\""],
        ["\"{wrong},\" said {o} the {o.role} at once. \"[Wrong|No, no],\" said {x}.", "{o}, {o.kind}, [jumped up|waved]. \"{wrong}!\" {x} shook {x.his} head.",
         "\"Could it be {wronglow}?\" asked {o}, {o.kind}. \"A good guess, but wrong,\" said {x}."],
        P,
        ["{h}, {h.kind}, [had said nothing|looked at the table|thought for a long time]. Then {h.he} [smiled|laughed]. \"{ans}!\"",
         "In the corner sat {h}, {h.kind}. \"I know it,\" {h.he} said [softly|slowly]. \"{ans}.\"",
         "Only {h}, {h.kind}, did not guess. {^h.he} [closed {h.his} eyes|listened to the fire]. \"It is {low},\" {h.he} said at last."],
        ["\"Right!\" cried {x}.", "{x} [clapped {x.his} hands|bowed]. \"{ans} it is.\"", "\"Yes,\" said {x}. \"It is {low}. How did you know?\""],
        ["\"My grandmother asked me the same when I was small,\" said {h}.", "\"I [listened|took my time],\" said {h}. \"[The others only talked.|That is all.]\"", None],
        ["{x} gave {h} {prize}.", "So {h} won {prize}.", "{h} took {prize} and [thanked the old {x.man}|shared the luck with {o}]."],
        ["Then {k}, the innkeeper, asked {x} a riddle in return, and [nobody slept before midnight|{x} is still thinking about it].",
         "\"Tomorrow a harder one,\" {x} [promised|said].", None],
        CLOSE)


TREASURES = (
    ("an iron box full of silver", "silver"), ("a chest of old coins", "coins"), ("a clay pot full of gold rings", "gold"),
    ("a box of letters tied with red string", "letters"), ("a bottle of very old wine", "wine"), ("a bag of seeds nobody knew", "seeds"),
    ("a wooden flute wrapped in cloth", "flute"), ("a book of forgotten songs", "book"),
)


def torn_map(s):
    keeper(s)
    a, b = s.person("a"), s.person("b")
    obstacle(s)
    s.set(h=a)
    what, short = s.choice(TREASURES)
    s.set(what=what, short=short, kin=s.choice(["grandfather", "grandmother", "uncle", "aunt"]), n=s.choice(["ten", "twelve", "seven", "twenty", "nine"]))
    use = {"silver": "They shared the silver, half and half.", "coins": "They counted the coins twice and each took half.",
           "gold": "Each took half of the rings, and one was left over, which they gave to {k}.",
           "letters": "They were love letters, and [both of them wept|they read them aloud by the fire].",
           "wine": "They opened it at the {tavern}, and every guest had one sip.", "seeds": "They planted the seeds, and in {season} [blue flowers|apple trees] grew there.",
           "flute": "{b} could play, and {a} could sing, so it was treasure enough.", "book": "Now they sing those songs at the {tavern} every [week|night]."}[short]
    s.set(use=use)
    return s.tell(
        OPEN,
        ["{a}, {a.kind}, laid half a map on the table. \"It was my {kin}'s,\" {a.he} said. \"But the other half is missing.\"",
         "\"This is all I have,\" said {a}, {a.kind}, and showed {k} the innkeeper one half of a torn map.",
         "{a}, {a.kind}, owned half a map, and [nobody could read it|it was no use to anyone]."],
        ["At the next table {b}, {b.kind}, [dropped {b.his} spoon|turned round]. {^b.he} pulled a paper from {b.his} boot. It was the other half.",
         "{b}, {b.kind}, [went pale|stared]. \"I have the other half,\" {b.he} said. \"[I found it in an old coat|I bought it for a penny].\""],
        ["The two pieces fitted together [like a broken plate|perfectly]. They showed {place}, {n} steps from the [old oak|well|broken wall].",
         "Side by side the halves showed {place} and a red cross, {n} steps from the [door|big stone]."],
        ["\"We share it,\" said {a}. \"Half and half,\" said {b}.", "\"Together, then?\" \"Together,\" said {b}.", "They shook hands on it: half for each."],
        ["\"Take care,\" said {k}, the innkeeper. \"They say {fear}.\" And {k.he} gave them {tool.a}.",
         "{k}, the innkeeper, warned them that {fear}. \"Take {tool.a}. {hint}.\""],
        P,
        ["The next [morning|day] {a} and {b} went {way} to {place}. {sight}", "At dawn the two walked {way} until they saw {place}. {sight}"],
        "{meet}", "{solve} {b} came after.",
        ["They took {n} steps and dug. [At noon|Soon] the spade struck something hard.", "{b} counted {n} steps, and {a} dug until [{a.his} hands hurt|the spade rang]."],
        ["It was {what}.", "And there it was: {what}!", "Out of the earth they lifted {what}."],
        P, "{use}",
        ["\"And the best part,\" said {a}, \"is that I found a friend.\"", "{a} and {b} [hung|nailed] the map, whole again, on the wall of the {tavern}.", None],
        CLOSE)


JOBS = (("chopping wood for the {tavern}", "wood"), ("carrying water all week", "water"), ("mending nets by the river", "nets"), ("picking apples", "apples"),
        ("sweeping chimneys", "soot"), ("herding geese", "geese"), ("painting the fence of the {tavern}", "paint"), ("digging a new well", "earth"))


def debt(s):
    keeper(s)
    a, b = s.person("a"), s.person("b")
    total = s.rng.randint(6, 18)
    has = s.rng.randint(2, total - 3)
    job, _ = s.choice(JOBS)
    forgiven = s.chance(0.35)
    s.set(total=coins(total), has=NUMBERS[has], rest=coins(total - has), restn=NUMBERS[total - has], job=s.say(job),
          cause=s.choice(["a dead cow", "a broken cart", "a bad harvest", "a new roof", "a doctor", "seed corn"]))
    first = s.tell(
        OPEN,
        ["{b}, {b.kind}, owed {a}, {a.kind}, {total}. [It was for|The money had gone for] {cause}.",
         "{a}, {a.kind}, came for {a.his} money. \"You owe me {total}, {b},\" {a.he} said.",
         "\"{^total},\" said {a}, {a.kind}. \"That is what I lent {b} for {cause}, and today is the day.\""],
        ["{b} turned out {b.his} purse. There were only {has} coins in it.", "\"I have {has},\" said {b}, {b.kind}, and [looked at the floor|went red].",
         "{b} counted {b.his} coins. There were {has}."],
        ["\"Then {restn} [are|is] missing,\" said {a}." if total - has == 1 else "\"Then {restn} are missing,\" said {a}.",
         "\"I will bring the other {restn} [in a week|by the next market day],\" {b.he} promised.",
         "\"{^total} less {has} is {restn},\" said {a}. \"When will I see {rest}?\""],
        P)
    second = s.tell(
        ["For a week {b} earned money by {job}.", "{k}, the innkeeper, had an idea. So {b} spent [the week|seven days] {job}, and {k} paid well.",
         "\"I pay for work,\" said {k}, the innkeeper. And {b} began {job}."],
        ["{^b.his} hands were sore, but {b.he} did not stop.", "It was hard work, and {b} slept [like a stone|well] every night.", None],
        ["On the last day {b} had earned {rest}.", "At the end of the week there were {rest} on the bar."],
        (["{b} brought them to {a}. But {a} had seen {b.him} work. \"Keep the {restn},\" {a.he} said. \"You are worth more than that.\"",
          "\"Here are the other {restn},\" said {b}. {a} [closed {b.his} hand over them|pushed them back]. \"Buy [seed|boots|a goat] with them. We are even.\""]
         if forgiven else
         ["{b} laid {rest} before {a}. With the {has} from before, that made {total}. \"We are even,\" said {a}.",
          "\"{^has} and {restn} make {total},\" said {b}. {a} [tore up the paper|nodded]. \"Paid in full.\""]),
        ["They drank to it.", "{b} walked home [lighter than air|with {b.his} head high].", "\"I never doubted you,\" said {k}.", "\"A debt paid is a good night's sleep,\" said {k}."],
        CLOSE)
    return first + "\n\n" + second


HAUNTS = (
    ("a long, low moan", "an empty bottle in the wall, and the wind blew over it", "took the bottle out"),
    ("the rattle of chains", "a goat that had lost its way, with a chain round its neck", "led the goat home"),
    ("three slow knocks", "a loose shutter that beat against the wall", "nailed the shutter down"),
    ("a child that cried", "a kitten under the floor", "carried the kitten home in a hat"),
    ("soft white wings", "a barn owl with four hungry chicks", "left the owl in peace"),
    ("music without a player", "an old harp by a broken window, and the wind played it", "brought the harp to the tavern"),
    ("heavy footsteps", "an old horse that had come back to its first home", "gave the horse a warm stable"),
    ("a voice that called a name", "a lost parrot from some ship", "taught the parrot to say good evening"),
    ("a pale blue light", "a patch of mushrooms that glowed in the dark", "filled a jar with the mushrooms to light the path"),
    ("someone snoring", "a tired peddler who slept there to save money", "found the peddler a real bed"),
)


def ghost(s):
    keeper(s)
    a, b = s.person("a"), s.person("b")
    place(s, ["mill", "manor", "tower", "chapel", "farm", "cellar", "crypt"])
    sound, cause, then = s.choice(HAUNTS)
    s.set(h=a, sound=sound, cause=cause, then=then, bet=s.choice([coins(s.rng.randint(2, 9)), "a new hat", "a week of suppers", "a keg of ale"]))
    return s.tell(
        OPEN,
        ["\"There is a ghost {at},\" said {b}, {b.kind}. \"I heard {sound}.\"", "{b}, {b.kind}, came in [out of breath|as white as milk]. \"A ghost! {^at}! I heard {sound}!\"",
         "They were talking about ghosts. \"Last night I heard {sound} {at},\" said {b}, {b.kind}."],
        ["\"Nobody goes there after dark,\" said {k}, the innkeeper.", "The guests [moved closer to the fire|fell silent|crossed themselves].", "\"My [cousin|brother] heard it too,\" [said|whispered] {k}, the innkeeper."],
        ["{a}, {a.kind}, [laughed|shook {a.his} head]. \"I do not believe in ghosts. I will go and look.\"",
         "\"I will sleep there tonight,\" said {a}, {a.kind}. \"[Who comes with me?|Give me a lamp.]\"",
         "\"Every noise has a cause,\" said {a}, {a.kind}. \"Let us find it.\""],
        ["\"If you do, I will give you {bet},\" said {b}.", "\"{^bet} says you run home before midnight,\" said {b}."],
        P,
        ["With a lamp in {a.his} hand, {a} walked {way} to {place}. {sight}", "{a} went {way}, and at [midnight|moonrise] {a.he} stood before {place}. {sight}"],
        ["At first it was still. Then it came: {sound}.", "{^a.he} waited. An hour passed, and then there was {sound}.", "And there it was, {sound}, just as {b} had said."],
        ["{a}'s heart beat [fast|like a drum], but {a.he} went on.", "{a} [wanted to run|felt cold], but {a.his} feet stayed where they were.", "\"Who is there?\" {a} called. Nobody answered."],
        ["{^a.he} lifted the lamp and saw {cause}.", "Step by step {a.he} went nearer. It was {cause}.", "Then {a.he} laughed out loud. The ghost was {cause}!"],
        "{a} {then}.",
        P,
        ["[In the morning|Back at the {tavern}] {a} told the whole story. \"So that was my ghost!\" said {b}.", "\"Did you meet the ghost?\" asked {k}. \"I did,\" said {a}. \"It was {cause}.\""],
        ["{b} gave {a} {bet} and laughed [at {b.himself}|with the rest].", "{a} got {bet}, and {b} [slept well|was no longer afraid]."],
        CLOSE)


BEASTS = (
    ("wolf", "a thorn in its paw", "pulled out the thorn"), ("wolf", "its leg caught in a trap", "opened the trap"), ("bear", "a bee in its ear", "washed out the bee with warm oil"),
    ("dragon", "a broken tooth", "pulled the tooth with a pair of tongs"), ("dragon", "a cold in its nose", "brewed it a bucket of hot herb tea"), ("fox", "a bone in its throat", "took out the bone"),
    ("wild boar", "its foot between two stones", "rolled the stone away"), ("eagle", "a broken wing", "bound the wing with a scarf"), ("troll", "a splinter in its thumb", "drew out the splinter with a needle"),
    ("giant", "a terrible headache", "laid a wet sheet on its brow"),
)
BEAST_GIFTS = {
    "wolf": "No other wolf came near the sheep again", "bear": "In spring the bear left a comb of honey at the gate", "dragon": "The dragon lit the bread oven every morning after that",
    "fox": "The fox never took another hen", "wild boar": "The boar dug up the whole potato field, in neat rows", "eagle": "The eagle watched over the lambs from then on",
    "troll": "The troll carried stones for the new bridge", "giant": "The giant moved a hill so that the road ran straight",
}


def beast(s):
    keeper(s)
    g, h = s.person("g"), s.person("h")
    kind, hurt, cure = s.choice(BEASTS)
    key = place(s, ["mill", "farm", "hill", "forest", "quarry", "bridge", "marsh", "ravine"])
    s.set(kind=kind, hurt=hurt, cure=cure, gift=BEAST_GIFTS[kind], its="its", o=s.person("o"))
    return s.tell(
        OPEN,
        ["\"There is a {kind} {at},\" said {g}, {g.kind}. \"It roars all night.\"" if kind in ("bear", "dragon") else
         "\"There is a {kind} {at},\" said {g}, {g.kind}. \"It [groans|cries|howls] all night.\"",
         "{g}, {g.kind}, [burst in|banged {g.his} fist on the table]. \"A {kind}! I saw it {at}!\"",
         "Everyone spoke about the {kind}. {g}, {g.kind}, had seen it {at}."],
        ["\"We must [drive it off|chase it away],\" said {o} the {o.role}. \"[Bring forks and torches!|Who has a spear?]\"", "{o} the {o.role} [reached for a stick|took down the old sword]. \"Let us get it before it gets us!\"",
         "\"I will not sleep until it is gone,\" said {o} the {o.role}."],
        ["\"Has it [hurt|bitten] anyone?\" asked {h}, {h.kind}. Nobody had heard of such a thing.", "{h}, {h.kind}, stood up. \"Let me see it first,\" {h.he} said. \"[A beast that cries is in pain.|I am not afraid.]\"",
         "\"Wait,\" said {h}, {h.kind}. \"Give me until morning.\""],
        P,
        ["So {h} went {way} to {place}, alone. {sight}", "{h} took [a loaf of bread|a blanket|a lamp] and walked {way} to {place}. {sight}"],
        ["There lay the {kind}, with {hurt}.", "The {kind} [lifted its head|looked up] and groaned. It had {hurt}.", "Then {h.he} saw the {kind}, and {h.he} saw that it had {hurt}."],
        ["\"Poor thing,\" said {h}. \"Hold still.\"", "{h} spoke [softly|slowly] and came closer, step by step.", "{^h.his} knees shook, but {h.he} knelt down beside it."],
        ["Gently {h.he} {cure}.", "{h} took a deep breath and {cure}.", "It took [an hour|all {h.his} courage], but {h} {cure}."],
        ["The {kind} [sighed|closed its eyes] and laid its head [on {h.his} knee|at {h.his} feet].", "For a moment they looked at each other. Then the {kind} [licked {h.his} hand|bowed its head] and went away."]
        if kind in ("wolf", "bear", "fox") else ["The {kind} [sighed|gave a long breath] and [smiled|closed its eyes].", "For a moment they looked at each other. Then the {kind} bowed its head."],
        P,
        ["{gift}.", "And what happened? {gift}.", "It did not forget. {gift}."],
        ["\"And I wanted to [kill|fight] it,\" said {o}.", "{g} [bought {h} supper|shook {h}'s hand]. \"You were braver than all of us.\"", "\"How did you know?\" asked {k}, the innkeeper. \"I listened,\" said {h}."],
        CLOSE)


NEWS = (
    ("{b}'s sister had a baby girl", "{b} laughed until the cups shook", "danced round the room with"), ("{b}'s lost brother was alive and coming home", "{b} sat down and wept for joy", "thanked"),
    ("{b} had inherited a little house by the sea", "{b} read it three times", "invited"), ("the war was over", "{b} let out a great shout", "drank to peace with"),
    ("{b}'s old teacher was ill and asked for {b.him}", "{b} took {b.his} coat at once", "thanked"), ("{b}'s ship had come in after all", "{b} [threw {b.his} hat in the air|sang]", "paid supper for"),
    ("{b}'s son had become a master {craft}", "{b} showed it to every guest", "embraced"),
)


def letter(s):
    keeper(s)
    a, b = s.person("a", role="messenger"), s.person("b")
    obstacle(s)
    s.set(h=a, craft=s.choice(["carpenter", "baker", "mason", "smith"]))
    text, reaction, thanks = s.choice(NEWS)
    s.set(news=s.say(text), reaction=s.say(reaction), thanks=thanks, wax=s.choice(["red", "green", "black", "blue"]), days=s.choice(["two", "three", "five", "nine"]))
    return s.tell(
        OPEN,
        ["{a}, a {a.trait} messenger, had ridden for {days} days with one letter in {a.his} bag. It had a {wax} seal.",
         "A messenger named {a} [drank a cup of water|warmed {a.his} hands]. In {a.his} bag lay a letter with a {wax} seal.",],
        ["\"It is for {b} the {b.role},\" {a.he} told {k}, the innkeeper. \"Where does {b.he} live?\"", "\"Do you know {b} the {b.role}?\" {a.he} asked {k}, the innkeeper. \"This is for {b.him}.\""],
        ["\"{b} works [far from here|out there], {at},\" said {k}. \"But they say {fear}.\"", "\"You will find {b.him} {at},\" said {k}. \"But take care: {fear}.\""],
        ["\"A letter must arrive,\" said {a}.", "\"I have never lost a letter yet,\" said {a}.", "{a} [finished {a.his} bread|buttoned {a.his} coat]. \"Then I go now.\""],
        "{k} gave {a.him} {tool.a}. \"{hint},\" {k.he} said.",
        P, JOURNEY, "{meet}", "{solve}",
        ["On the other side stood {b}, {b.kind}, [with a spade in {b.his} hand|very surprised].", "There {a.he} found {b}, {b.kind}. \"A letter? For me?\""],
        ["{b} broke the {wax} seal and read. The letter said that {news}.", "With shaking hands {b} opened the {wax} seal. \"It says that {news},\" {b.he} [whispered|read]."],
        P, "{reaction}.",
        ["That evening {b} came to the {tavern} and {thanks} {a}.", "{b} {thanks} {a}, and they walked back to the {tavern} together."],
        ["\"Good news should travel fast,\" said {a}.", "{a} slept {days} hours for {days} days of riding.", "\"And now,\" said {a}, \"who can fill my cup?\"", None],
        CLOSE)


CRAFTS = (
    ("smith", "horseshoe", "burned", "held it in the fire too long", "bend it into a hook for the kitchen"), ("potter", "jug", "cracked", "opened the oven too soon", "fill the crack with gold dust"),
    ("baker", "cake", "burned", "fell asleep by the oven", "cut off the crust and make small cakes"), ("tailor", "coat", "cut too short", "measured with the wrong ribbon", "make it a fine short jacket"),
    ("carpenter", "table", "crooked", "forgot to measure twice", "cut all four legs to match"), ("painter", "sign", "smeared", "leaned on it while it was wet", "turn the smear into a cloud"),
    ("brewer", "beer", "too sweet", "put the honey in twice", "sell it as honey beer"), ("bell founder", "bell", "cracked", "poured the bronze too cold", "melt it and pour it again"),
    ("glassblower", "vase", "bent", "blew too hard", "call it a swan and add a beak"),
)


def apprentice(s):
    keeper(s)
    role, obj, wrong, cause, fix = s.choice(CRAFTS)
    m, a = s.person("m", role=role), s.person("a", role="apprentice", trait=s.choice(["young", "shy", "eager", "careful"]))
    s.set(obj=obj, wrong=wrong, cause=cause, fix=fix)
    return s.tell(
        OPEN,
        ["{a}, the {m.role}'s apprentice, sat in the corner and [did not eat|hid {a.his} face].", "The {m.role}'s apprentice, a {a.lad} named {a}, [came in alone|would not look up]."],
        ["\"What did you do?\" asked {k}, the innkeeper.", "{k}, the innkeeper, brought {a.him} some milk. \"Tell me,\" {k.he} said."],
        ["\"I [made|was making] the {obj} for the {tavern},\" said {a}, \"and now it is {wrong}. I {cause}.\"", "\"The {obj} that {m} trusted me with is {wrong},\" {a.he} said. \"It is my fault. I {cause}.\""],
        ["\"You could say the cat did it,\" said a guest.", "\"Run away,\" said [a sailor|someone]. \"{m} will be furious.\"", "\"Hide it,\" whispered [the stable boy|a guest]."],
        ["But {a} shook {a.his} head. \"I will tell the truth.\"", "{a} thought about it for a long time. \"No,\" {a.he} said. \"{m} taught me to be honest.\""],
        P,
        ["Just then {m} the {m.role} came in. {a} stood up. \"I {cause}, and the {obj} is {wrong},\" {a.he} said.", "{a} went to {m} the {m.role} and told {m.him} everything: how {a.he} {cause}, and how the {obj} was {wrong}."],
        ["{m} was silent for a while. Then {m.he} [laughed|began to smile].", "{m} looked at the {obj} from every side and [scratched {m.his} head|hummed]."],
        ["\"When I was an apprentice, I did [the same|much worse],\" {m.he} said. \"Come, we can {fix}.\"", "\"A mistake is only a thing we have not used yet,\" said {m}. \"We can {fix}.\""],
        ["They worked [all night|until dawn], side by side.", "{a} held the lamp, and {m} showed {a.him} how.", "\"You do it,\" said {m}, \"and I will watch.\" This time {a} was careful."],
        P,
        ["{k} [was delighted|liked it even better than before].", "[The next day|In the morning] everyone [came to look|admired it]."],
        ["{a} never {cause} again.", "\"You were honest,\" said {m}. \"That is the hardest part of the craft.\"", "And {a} became the best {m.role} in {town}."],
        CLOSE)


PETS = (("goat", "eating the mayor's hat", "in the mayor's garden"), ("piglet", "asleep in a basket of apples", "at the market"), ("donkey", "listening to the choir", "behind the church"),
        ("hen", "sitting on six eggs", "in the hay loft"), ("puppy", "stuck in an empty barrel", "in the cellar of the {tavern}"), ("cat", "with four new kittens", "in the baker's cupboard"),
        ("lamb", "asleep beside an old dog", "under the hay cart"), ("pony", "drinking from the fountain", "on the square"), ("duck", "swimming in the wash tub", "in the washhouse"), ("cow", "looking at herself in the pond", "by the mill pond"))
SEARCHED = ["the stable", "the orchard", "the reeds", "the churchyard", "the smithy", "the barn", "the long ditch", "the cherry orchard", "the turnip field", "the brewery yard"]


def lost_animal(s):
    keeper(s)
    g, h = s.person("g"), s.person("h")
    kind, doing, where = s.choice(PETS)
    x, y = s.rng.sample(SEARCHED, 2)
    s.set(kind=kind, doing=doing, where=s.say(where), x=x, y=y, pet=s.choice(["Clover", "Button", "Pepper", "Daisy", "Biscuit", "Pebble", "Turnip", "Thistle", "Bramble", "Nutmeg"]),
          thanks=s.choice(["a basket of eggs", "a round cheese", "a jar of plum jam", "a warm loaf", coins(3), "a pair of wool socks"]))
    return s.tell(
        OPEN,
        ["{g}, {g.kind}, ran in without a hat. \"Has anyone seen my {kind}?\"", "\"My {kind} is gone!\" cried {g}, {g.kind}. \"Her name is {pet}.\"", "{g}, {g.kind}, was in tears. {pet}, {g.his} {kind}, had run away."],
        ["\"I will help you look for {pet},\" said {h}, {h.kind}.", "{h}, {h.kind}, [took a lamp|put on {h.his} boots]. \"Two see more than one.\"", "\"When did you last see {pet}?\" asked {h}, {h.kind}. \"This morning,\" said {g}."],
        P,
        ["They looked in {x}, but {pet} was not there.", "First they went to {x}. There was [no {kind}|nobody] there.", "They searched {x} and found only [a rake|an old shoe|mud]."],
        ["Then they looked in {y}. Nothing.", "After that they tried {y}, but [it was empty|they had no luck].", "In {y} they met a boy. \"I saw a {kind} run that way,\" he said."],
        ["\"She is gone for good,\" said {g}. \"[Not yet|Listen],\" said {h}.", "{g} sat down and [sighed|wept]. But {h} had heard something.", "It grew dark. \"One more place,\" said {h}."],
        ["And {where}, there was {pet}, {doing}.", "They found {pet} {where}. The {kind} was there, {doing}, as if nothing had happened.", "What did they see {where}? It was {pet}, {doing}!"],
        P,
        ["{g} [hugged|kissed] {pet} [and scolded her|and laughed].", "\"{pet}!\" cried {g}. The {kind} only looked up, [as calm as you please|and went on]."],
        ["{g} gave {h} {thanks}.", "\"This is for you,\" said {g}, and {h} got {thanks}.", "For {h.his} help, {h} was given {thanks}."],
        ["{k}, the innkeeper, [heard the story twice|laughed so hard that {k.he} spilled the soup].", "And from that day {pet} wore a little bell.", None],
        CLOSE)


QUARRELS = (
    ("an apple tree that grew on the fence between their gardens", "One of you picks on even days, the other on odd days", "the tree"),
    ("a cow that they had bought together", "One of you milks her in the morning, the other in the evening", "the cow"),
    ("the best seat by the fire", "Build a bench, and there will be room for both", "the seat"), ("a wall that was one foot too far to the left", "Take the wall down and plant roses", "the wall"),
    ("which of their two inns was older", "Ask your grandmothers, who built them in the same week", "the inns"), ("a wheelbarrow", "Let the one who fills it push it, and the other sharpen the spade", "the wheelbarrow"),
    ("a tune that each said was theirs", "One of you sings it, and the other plays", "the tune"), ("a boat with one oar too few", "One of you rows while the other fishes, and then you change places", "the boat"),
)


def quarrel(s):
    s.person("e", role="elder", trait="old")
    a, b = s.person("a"), s.person("b")
    about, wise, short = s.choice(QUARRELS)
    keeper(s)
    s.set(about=about, wise=wise, short=short, years=s.choice(["two", "three", "five", "seven", "ten"]))
    return s.tell(
        OPEN,
        ["For {years} years {a} the {a.role} and {b} the {b.role} had not spoken. They had quarrelled about {about}.", "{a} the {a.role} sat on the left and {b} the {b.role} on the right, for they had been enemies for {years} years. It was all about {about}.",
         "\"It is mine!\" shouted {a}, {a.kind}. \"It is not!\" shouted {b}, {b.kind}. They were quarrelling about {about}."],
        ["\"{a} is [a mule|a thief],\" said {b}. \"{b} is [a liar|a fool],\" said {a}.", "{k}, the innkeeper, [put both hands over {k.his} ears|sighed]. \"Every week the same.\"", "Nobody could eat in peace."],
        P,
        ["Then old {e} [tapped on the table|put down {e.his} pipe]. {^e.he} was the oldest {e.man} in {town}.", "In the end they went to old {e}, who [had seen ninety winters|was wise and a little deaf]."],
        ["\"Tell me, {a}, what do you miss most?\" {e.he} asked. {a} [thought|looked down]. \"My friend,\" {a.he} said.", "\"Who was your best friend before this?\" asked {e}. Both looked at the floor.", "\"How much has {short} cost you in {years} years?\" asked {e}. \"A friend,\" said {b} [quietly|at last]."],
        ["\"It is simple,\" said {e}. \"{wise}.\"", "Old {e} smiled. \"{wise}.\""],
        P,
        ["{a} looked at {b}. {b} looked at {a}. Then both [began to laugh|held out a hand].", "\"Why did we not think of that?\" said {b}. \"Because we were shouting,\" said {a}."],
        ["They shared {short} from then on.", "And so the quarrel of {years} years ended in [one evening|a minute].", "{^years} years they had lost, and they did not lose another day."],
        ["\"And what do I get?\" asked {e}. They gave {e.him} [a pie|the best chair|a pouch of tobacco].", "{k} brought three cups, one for each of them.", None],
        CLOSE)


CONTESTS = (
    ("the pie contest", "pie", ["with plums", "with leeks", "with salmon", "with pears", "with mushrooms", "with honey and nuts"], "baked a pie"),
    ("the pumpkin contest", "pumpkin", ["as round as the moon", "as big as a barrel", "as long as a man", "as yellow as butter", "as small as a fist"], "brought a pumpkin"),
    ("the kite contest", "kite", ["shaped like a fish", "made of old maps", "with a red tail", "as big as a door", "painted like an eye"], "made a kite"),
    ("the lantern contest", "lantern", ["cut from a turnip", "of blue glass", "made like a swan", "that turned by itself", "with forty tiny holes"], "made a lantern"),
    ("the soup contest", "soup", ["of wild garlic", "of beets", "of crab", "of lentils and smoke", "of seven herbs"], "cooked a soup"),
)


def contest(s):
    keeper(s)
    name, thing, kinds, did = s.choice(CONTESTS)
    people = [s.person(x) for x in "abc"]
    ka, kb, kc = s.rng.sample(kinds, 3)
    i = s.rng.randrange(3)
    s.set(name=name, thing=thing, did=did, ka=ka, kb=kb, kc=kc, win=people[i], kwin=(ka, kb, kc)[i], l1=people[(i + 1) % 3],
          l2=people[(i + 2) % 3], prize=s.choice(["a silver spoon", "a blue ribbon", "a barrel of cider", coins(10), "a fat goose", "a new kettle"]))
    return s.tell(
        OPEN,
        ["It was the day of {name}, and the prize was {prize}.", "Every {season} there was {name}. The winner would get {prize}."],
        ["{k}, the innkeeper, was the judge.", "\"I have never been so [hungry|nervous],\" said {k} the innkeeper, who was the judge."],
        P,
        ["{a}, {a.kind}, {did} {ka}.", "First came {a}, {a.kind}, who {did} {ka}."],
        ["{b}, {b.kind}, {did} {kb}.", "Then came {b}, {b.kind}, who {did} {kb}. \"[Beat that|Look at this]!\" {b.he} said."],
        ["And {c}, {c.kind}, {did} {kc}.", "Last came {c}, {c.kind}. {^c.he} {did} {kc}."],
        ["{k} [walked up and down|looked at them all twice|thought for a long time].", "The judge could not decide. \"Once more,\" said {k}.", None],
        P,
        ["\"The winner is {win},\" {k} said, \"for the {thing} {kwin}.\"", "At last {k} pointed at the {thing} {kwin}. \"This one!\" It was {win}'s.", "{win} won with the {thing} {kwin}."],
        ["{win} took {prize} and [blushed|could not believe it|jumped for joy].", "So {prize} went to {win}, and everyone [clapped|cheered]."],
        ["{l1} [frowned|was sad], but {win} said: \"Teach me how you made yours.\"", "\"Next year I will win,\" said {l2}.", "{l1} and {l2} were the first to [shake {win}'s hand|cheer]."],
        CLOSE)


ILLS = (("a fever", "feverfew"), ("a bad cough", "lungwort"), ("a sleep that would not end", "wakeflower"), ("a broken heart", "honeysuckle"), ("a pain in the chest", "foxglove"),
        ("the shaking sickness", "moonwort"), ("a stiff back", "silverleaf"), ("the winter chill", "goldenrod"))


def cure(s):
    keeper(s)
    h, g = s.person("h"), s.person("g", role="healer")
    sick = s.person("x")
    obstacle(s)
    ill, herb = s.choice(ILLS)
    s.set(ill=ill, herb=herb, kin=s.choice(["friend", "neighbour", "cousin"]))
    return s.tell(
        OPEN,
        ["But {x}, {x.kind}, lay upstairs with {ill}.", "Upstairs lay {x}, {x.kind}. {^x.he} had {ill}, and {k}, the innkeeper, was worried.", "\"{x} has {ill},\" {k} the innkeeper told the guests. \"[Please speak softly.|The poor {x.role} eats nothing.]\""],
        ["{g} the healer came down the stairs. \"Only {herb} can help,\" {g.he} said.", "\"There is one herb for that,\" said {g} the healer. \"It is called {herb}.\""],
        ["\"Where does it grow?\" asked {h}, {h.kind}, who was {x}'s {kin}. \"Only {at}. But {fear}.\"", "\"It grows {at},\" {g.he} said, \"but {fear}.\" {h}, {h.kind}, stood up. {^x} was {h.his} {kin}."],
        ["\"I will go,\" said {h}.", "{h} already had {h.his} [coat|boots] on.", "\"Then what are we waiting for?\" said {h}."],
        GIVES_TOOL,
        P, JOURNEY, "{meet}", "{solve}",
        ["There grew the {herb}, [blue as evening|white as snow|small and green]. {h} picked [three leaves|a handful|one flower].", "And among the stones {h.he} found the {herb} and [filled {h.his} hat|picked a handful]."],
        P,
        ["{g} made a tea from the {herb}, and {x} drank it [slowly|all].", "Back at the {tavern}, {g} boiled the {herb} with honey. {x} drank a cup of it."],
        ["In the morning {x} [sat up|came down the stairs] and asked for [breakfast|pancakes|soup].", "Before the sun was up, {x} opened {x.his} eyes. \"I am hungry,\" {x.he} said.", "The next day the sickness was gone, and {x} was well again."],
        ["\"Who brought the {herb}?\" {x.he} asked. \"{h} did,\" said {k}.", "{x} took {h}'s hand. \"I will never forget this.\"", "\"A good {kin} is the best medicine,\" said {g}."],
        CLOSE)


DRAGON_WANTS = (
    ("stories", "It was lonely and wanted someone to tell it stories", "told it a story every night, and on the hundredth night the dragon told one itself"),
    ("a bath", "It had soot under its wings and could not reach", "took a broom and scrubbed its back until it shone like copper"),
    ("a friend", "Nobody had ever asked it to sit down", "pulled up a stone and shared {h.his} bread"),
    ("a song", "It had forgotten the song its mother used to sing", "sang every song {h.he} knew until the dragon wept at one of them"),
    ("sleep", "The church bells woke it every hour", "hung a blanket in the cave mouth to keep out the sound"),
    ("a game", "It was bored after three hundred years", "taught it to play chess with barrels and apples"),
    ("a name", "It had never been given a name", "called it {dragon}, and it roared with joy"),
)


def dragon_tale(s):
    """A tale inside a tale: an old guest tells it, and at the end there is proof."""
    keeper(s)
    o, h = s.person("o", trait="old"), s.person("h", trait=s.choice(["young", "clever", "brave", "honest"]))
    want, why, did = s.choice(DRAGON_WANTS)
    s.set(dragon=s.choice(["Ember", "Cinder", "Ash", "Smoke", "Flint", "Brand"]), want=want, why=why, colour=s.choice(["green", "red", "black", "golden", "grey", "blue"]))
    place(s, ["cave", "hill", "mine", "ravine", "quarry", "tower"])
    s.set(did=s.say(did), gift=s.choice(["scale", "tooth", "claw"]))
    return s.tell(
        OPEN,
        ["Old {o} put down {o.his} cup. \"Let me tell you about {h} and the dragon,\" {o.he} said.", "\"A story!\" cried the guests, and old {o} [cleared {o.his} throat|lit {o.his} pipe]. This is what {o.he} told.", "\"You do not believe in dragons?\" said old {o}. \"Then listen.\""],
        P,
        ["\"Long ago a {colour} dragon came to live {at}.", "\"Once a {colour} dragon lived {at}.", "\"When I was [small|young], a {colour} dragon moved in {at}."],
        ["It burned no houses, but it [roared|sighed] all night, and nobody could sleep.", "It ate no sheep, yet everyone was afraid of it.", "The knights came with swords and went home without eyebrows."],
        ["Then {h}, {h.kind}, went {way} and knocked on the rock. 'What do you want?' {h.he} asked.", "One day {h}, {h.kind}, said: 'Has anyone asked it what it wants?' And {h.he} went {way} to {place}.", ],
        ["'I want {want},' said the dragon. {why}.", "The dragon was so surprised that it told {h.him}. It wanted {want}. {why}."],
        ["So {h} {did}.", "And {h} {did}, just like that."],
        ["From then on the dragon [kept the road free of snow|warmed the fields in spring|guarded the valley].", "Since that day the dragon has been our friend.", "It gave {h} a {colour} {gift} for luck, and it never frightened anyone again."],
        "That is the truth.\"",
        P,
        ["\"Nonsense,\" said [a sailor|a young guest|a peddler]. \"Who would believe that?\"", "The guests laughed. \"And where is {h} now?\" asked {k}, the innkeeper.", "\"How do you know all this?\" asked {k}, the innkeeper."],
        ["Old {o} smiled and laid a {colour} {gift} on the table. It was as big as a plate.", "Old {o} said nothing. {^o.he} only took a {colour} {gift} from {o.his} pocket, and it was still warm."],
        CLOSE)


THIEVES = (("bread for {x.his} little sister", "work in the kitchen"), ("medicine for {x.his} father", "work in the stable"), ("a coat for the winter", "work in the cellar"), ("passage home on a ship", "a place on the next cart"))


def thief(s):
    keeper(s)
    h, x = s.person("h"), s.person("x", role="thief", trait="young")
    need, offer = s.choice(THIEVES)
    n = s.rng.randint(5, 15)
    spent = s.rng.randint(2, 4)
    clue, who = s.choice([("a muddy boot print with a hole in the heel", "One guest had a hole in {x.his} heel"), ("a torn piece of grey wool", "One guest wore a torn grey shawl"), ("a drop of candle wax", "One guest had wax on {x.his} sleeve"),
                          ("a long red hair", "One guest had long red hair"), ("a broken bootlace", "One guest had only one bootlace")])
    s.set(need=s.say(need), mine=need.replace("{x.his}", "my"), yours=need.replace("{x.his}", "your"), offer=offer, n=coins(n), left=NUMBERS[n - spent], spent=NUMBERS[spent], clue=clue, who=s.say(who), where=s.choice(["behind the bar", "under the stairs", "beside the till", "on the window sill"]))
    return s.tell(
        OPEN,
        ["{k}, the innkeeper, opened the cash box, and it was empty. {^n} were gone.", "\"Thief!\" cried {k}, the innkeeper. \"Someone has taken {n}!\"", "At closing time {k}, the innkeeper, counted the money. {^n} were missing."],
        ["{h}, {h.kind}, looked round. {^where} {h.he} found {clue}.", "\"Nobody leave,\" said {h}, {h.kind}. On the floor {where} there was {clue}."],
        ["{who}. It was {x}, a thin {x.lad} nobody knew.", "{h} looked at every guest in turn. {who}. \"What is your name?\" {h.he} asked. \"{x},\" the {x.lad} whispered."],
        ["{x} [began to cry|turned red]. \"I took it,\" {x.he} said. \"I needed {mine}.\"", "\"Yes, it was me,\" said {x}. \"I wanted to buy {mine}.\""],
        ["{^x.he} put {left} coins on the table. \"I have already spent {spent}.\"", "Of the {n}, {left} were left. {^x.he} gave them all back."],
        P,
        ["\"Call the guard,\" said a guest. But {k} looked at {x}'s thin hands.", "Everyone looked at {k}. What would {k.he} do?", "\"Off to prison!\" someone shouted. {k} shook {k.his} head."],
        ["\"Why did you not ask?\" said {k}. \"I would have helped you.\"", "\"You should have asked me,\" said {k}."],
        ["{^k.he} offered {x.him} {offer}, and {need}.", "\"You can have {offer},\" {k.he} said, \"and {yours} as well.\""],
        ["{x} could hardly speak. \"Thank you,\" {x.he} said [at last|again and again].", "{x} [dried {x.his} eyes|bowed]. \"I will pay back the {spent}.\""],
        P,
        ["A year later {x} came back and put {spent} coins on the bar.", "{x} kept {x.his} word, and {k} never had to lock the cash box again.", "The {spent} coins were paid back within a month."],
        ["\"I knew you would,\" said {k}.", "{h} raised {h.his} cup to them both.", None],
        CLOSE)


TALES = (lost_heirloom, lost_heirloom, lost_heirloom, song_contest, song_contest, card_game, card_game, stranger, stranger, missing_spice, missing_spice,
         bargain, riddle, riddle, torn_map, torn_map, debt, debt, ghost, ghost, beast, beast, letter, letter, apprentice, lost_animal, lost_animal,
         quarrel, contest, cure, cure, dragon_tale, dragon_tale, thief)
