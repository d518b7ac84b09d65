#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/: vocab-only GGUF files and the ids that Hugging Face `tokenizers` gives.

    pip install tokenizers==0.23.3 && python3 tests/golden/make_tokenizer.py

For each family of pre-tokenizers a byte-level BPE of about 600 tokens is trained on the text below, with the patterns as
the models' own tokenizer.json files have them: Split(pattern, isolated) one after the other, then ByteLevel without its own pattern.
A family NAME becomes NAME.gguf, NAME.ids and NAME.words; all share inputs.txt and random.txt.

inputs.txt  a text a line. \\\\ \\n \\r \\t \\xHH are bytes, \\{TEXT*N} is TEXT N times.
random.txt  the same; characters of every general category, for the words only.
NAME.ids    a line for each text of inputs.txt: the ids without control tokens, and behind " | " the ids with them
            (VKM_TOKENIZE_PARSE) where those differ. X*N is X N times.
NAME.words  a line for each text of inputs.txt, then of random.txt: the lengths in bytes of the words it is cut into.
"""
import json
import os
import random
import struct
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer")

# ------------------------------------------------------------------------------------------------ patterns

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s|"
         r"%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ"
    "\u1f5f-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌ\u1fd0-\u1fd3\u1fd6-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-\u212dℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳ"
    "Ꙁ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃")
DEEPSEEK_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"

CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
FAMILIES = {   # name (also tokenizer.ggml.pre): patterns, ignore_merges
    "gpt-2": ([GPT2], False),
    "refact": ([r"\p{N}", GPT2], False),
    "qwen2": ([CL100K % r"\p{N}"], False),
    "llama-bpe": ([CL100K % r"\p{N}{1,3}"], True),
    "dbrx": ([CL100K % r"\p{N}{1,3}"], False),
    "qwen35": ([QWEN35], False),
    "gpt-4o": ([O200K % (CONTRACTION, CONTRACTION, r"\p{N}{1,3}")], False),
    "tekken": ([O200K % ("", "", r"\p{N}")], True),
    "deepseek-llm": (["[\r\n]", r"\s?[" + DEEPSEEK_LETTERS + "]+",
                      r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$", DEEPSEEK_CJK, r"\p{N}+"], False),
    "deepseek-coder": (["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"], False),
    "deepseek-v3": ([r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
                     r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
                     r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"], False),
    "bailingmoe": ([r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"], False),
    "default": ([r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], False),
}

# ------------------------------------------------------------------------------------------------ text

CORPUS = """The tavern keeper didn't say a word; she'd seen it all before. We'll be there, they've said, I'm sure you're right.
Once upon a time there was a small kobold who could count to 1234567890. The door opened, and the wind came in.
Der Wirt erzählte, daß die Straße über den Fluß führt. Größere Bäume stehen dort, süße Äpfel auch.
L'aubergiste n'a rien dit ; l'été était déjà là, où çà et là naïvement nous rêvions.
Старый трактирщик молчал. В углу сидел путник и пил чай, а за окном шёл снег. Ещё раз!
Ο ταβερνιάρης δεν είπε λέξη. Ήταν αργά και όλοι κοιμόντουσαν.
صاحب الحانة لم يقل كلمة واحدة، وكان الليل طويلاً. مرحبا بالعالم
בעל הפונדק לא אמר מילה, והלילה היה ארוך.
सराय का मालिक चुप रहा। रात लंबी थी और हवा ठंडी।
เจ้าของโรงเตี๊ยมไม่พูดอะไร ค่ำคืนยาวนาน
酒馆老板没有说话。夜很长，风很冷。他们从远方来，要到山的那一边去。
宿屋の主人は何も言わなかった。夜は長く、カタカナとひらがなが混ざる。
주막 주인은 아무 말도 하지 않았다. 밤은 길고 바람은 차가웠다.
int main(void) { for (int i = 0; i < 10; i++) { printf("%d\\n", i); } return 0; } /* comment */ a += b->c[3] != 0xff;
🙂🙃👍🏽 👩‍👩‍👧 🏳️‍🌈 ½ ² ① Ⅷ ٣٤٥ १२३
HELLO World CamelCase XMLHttpRequest IT'S DON'T WE'LL
""" * 4

FIXED = [
    "", " ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n", "\n ", "\t\n \r\n\t", "a", " a", "a ", " a ", "  a  ", "a\tb", "a \t b",
    "Hello, world!", " Hello,  world! ", "tavern", " tavern", "The tavern.", "line one\r\nline two\r\n\r\nline  four\r\n  ",
    "don't DON'T Don'T we'll WE'LL they've THEY'VE I'm I'M you're YOU'RE she'd SHE'D it's IT'S",
    "'s't're've'm'll'd 'S'T'RE'VE'M'LL'D ''s ' s rock'n'roll l'été L'ÉTÉ don’t it\u2019s 'ſ 'lL 'rE",
    "1 12 123 1234 12345 123456 1234567 12345678 123456789 3.14159 1,000,000 0x1F 1e-10 v2.0-rc1",
    "½ ¼ ² ③ Ⅷ ٣٤٥٦ १२३४ ௧௨ 一二三 ⁹ 12½34", "2024-05-06T07:08:09Z +49 (0)30 1234-5678",
    "naïve café Ångström E\u0301cole e\u0301e\u0300\u0301 a\u0308\u0323b n\u0303 \u0301start x\u0301\u0302\u0303\u0304y",
    "العربية نص مُشَكَّل وَالْحَرَكَاتُ ٢٠٢٤", "עִבְרִית עם ניקוד", "हिन्दी में क्षत्रिय ज्ञान है", "ภาษาไทยไม่มีช่องว่าง", "தமிழ் மொழி",
    "中文分词：你好，世界！２０２４年", "日本語のテキスト。カタカナ、ひらがな、漢字ー々〆", "한국어 텍스트입니다 ㄱㄴㄷ", "混合mixed文字text和123数字",
    "🙂", "🙂🙃 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ☺️ ❤️‍🔥 1️⃣ #️⃣", "a🙂b 🙂 c", "zero\u200bwidth\u200cjoin\u200ders\u2060and\ufeffBOM",
    "soft\u00adhyphen non\u00a0breaking\u202fnarrow\u3000ideographic\u2028line\u2029par\u0085nel\u180emvs\u1680ogham\u2003em",
    "a\u180e\u180eb !\u180e! \u180e 1\u180e\u180e", "\x85\x85a \x85! \u2028\u2028 \u2029a \u00a0\u00a0",
    "nul\x00byte \x00\x00 end\x00", "bell\x07esc\x1b[0m\x7f\x80\x9f", "\x0b\x0c vertical\x0bform\x0cfeed \x1c\x1d\x1e\x1f",
    "int main(void)\n{\n\tfor (int i = 0; i < 10; i++)\n\t\tprintf(\"%d\\n\", i);\n\n    return 0;\n}\n",
    "def f(x):\n    if x > 0:\n        return x ** 2  # square\n    return None\n\n\n", "a+b==c&&d||!e?f:g;<<=>>= ->:: ... !!! ??? ___ --- ***",
    "https://example.org/a/b?c=d&e=%20f#g user@host.tld C:\\dir\\file.txt ~/x/y.tar.gz", "camelCase PascalCase snake_case SCREAMING_SNAKE XMLHttpRequest iPhone",
    "ABCdef ABC'S abcDEF'll ǅungla ǈ ᾈ ʰᵃ ªº ﬁ ﬀ İstanbul ıi ẞß", "  leading", "trailing  ", "trailing\t\t", "trailing \n\n ", "in   the    middle     of",
    " \u00a0 \u2003 mixed \u3000\u3000spaces\u3000", "$100 €50 £3 ¥7 ₿1 +−×÷=≠≈ ←→↑↓ ©®™ °C §5 ¶", "“quoted” ‘single’ «guillemets» „low“ 「括弧」（全角）",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|>", "x<|endoftext|>y <|endoftext|> ", "<|im_end", "<tool>call</tool> <tool>",
    "a<tool> b<tool><tool>\n", "<|im_start|><tool><|im_end|>", "<unk>", "< |im_end|>",
    "Ａｌｐｈａ ａｂｃ １２３", "ℤΩℨKℭ µ ƻ ʔ ა Ა Ꭰ ꭰ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐐀𐐨 𞤀 𐒰 𠀀𠀁", "'\n'\r\n's\n", "\r", "\r\r\n", "a\rb", "/\n//\n ./\r\n", "!\n!!\r\n\r\n ! \n",
]
# long runs: "TEXT", N
RUNS = [("a", 5000), ("A", 3000), (" ", 3000), ("\n", 2000), ("1", 3000), ("!", 3000), ("ab ", 90), ("中", 150), ("🙂", 70), ("e\u0301", 80),
        ("\r\n", 100), ("'s", 90), ("aB", 110), ("A1", 95), (" \n", 105), ("\u0301", 130), ("é", 170), ("<|im_end|>", 12)]
RUN_EDGES = [("x", " ", 2500, "y"), ("", "\t", 900, "z"), ("9", " ", 901, "\n"), ("", "the ", 90, "end")]


def random_texts(n):
    """Characters of every general category that old Unicode (3.2) has already and that have not changed category since."""
    old = unicodedata.ucd_3_2_0
    pool = {}
    for code in range(0x110000):
        c = chr(code)
        category = unicodedata.category(c)
        if category in ("Cs", "Co", "Cn") or old.category(c) != category or code in (0x180e, 0x200b):
            continue
        pool.setdefault(category, []).append(c)
    rng = random.Random(20260901)
    categories = sorted(pool)
    common = list("  \n\t'stredlLabAB019.,!-\r")
    texts = []
    for _ in range(n):
        text = ""
        for _ in range(rng.randint(1, 24)):
            if rng.random() < 0.5:
                text += rng.choice(common)
            else:
                text += rng.choice(pool[rng.choice(categories)]) * rng.choice((1, 1, 1, 2, 3))
        texts.append(text)
    return texts


def escape(text):
    out = ""
    for c in text:
        if c == "\\":
            out += "\\\\"
        elif c in "\n\r\t":
            out += {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[c]
        elif unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Mn", "Me", "Mc") or (c.isspace() and c != " "):
            out += "".join("\\x%02X" % b for b in c.encode())
        else:
            out += c
    return out


def inputs():
    out = [(t, escape(t)) for t in FIXED]
    out += [(t * n, "\\{%s*%d}" % (escape(t), n)) for t, n in RUNS]
    out += [(a + t * n + b, "%s\\{%s*%d}%s" % (escape(a), escape(t), n, escape(b))) for a, t, n, b in RUN_EDGES]
    return out


# ------------------------------------------------------------------------------------------------ tokenizers

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<tool>"]
WHOLE_WORDS = ["Ġtavern", "kobold", "ĠDON"]    # tokens that no merge leads to: only ignore_merges finds them


def build(patterns, ignore_merges):
    splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    pre = pre_tokenizers.Sequence(splits + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=590, initial_alphabet=alphabet, show_progress=False, max_token_length=12)
    trained.train_from_iterator(CORPUS.split("\n"), trainer)
    model = json.loads(trained.to_str())["model"]
    vocab, merges = model["vocab"], [tuple(m) for m in model["merges"]]
    for word in WHOLE_WORDS:
        if word not in vocab:
            vocab[word] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CONTROL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in USER_DEFINED])
    return tokenizer, merges


def gguf_string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def write_gguf(path, name, tokenizer, merges):
    size = tokenizer.get_vocab_size()
    tokens = [tokenizer.id_to_token(i) for i in range(size)]
    types = [3 if t in CONTROL else 4 if t in USER_DEFINED else 1 for t in tokens]
    keys = []

    def string(key, value):
        keys.append(gguf_string(key) + struct.pack("<I", 8) + gguf_string(value))

    def strings(key, values):
        keys.append(gguf_string(key) + struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(gguf_string, values)))

    string("general.architecture", "qwen3moe")
    string("tokenizer.ggml.model", "gpt2")
    string("tokenizer.ggml.pre", name)
    strings("tokenizer.ggml.tokens", tokens)
    keys.append(gguf_string("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, size) + struct.pack("<%di" % size, *types))
    strings("tokenizer.ggml.merges", [" ".join(m) for m in merges])
    for key, token in (("bos", "<|endoftext|>"), ("eos", "<|im_end|>")):
        keys.append(gguf_string("tokenizer.ggml.%s_token_id" % key) + struct.pack("<II", 4, tokenizer.token_to_id(token)))
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(keys))


def numbers(ids):
    out, i = [], 0
    while i < len(ids):
        n = 1
        while i + n < len(ids) and ids[i + n] == ids[i]:
            n += 1
        out.append(str(ids[i]) if n == 1 else "%d*%d" % (ids[i], n))
        i += n
    return " ".join(out)


def words(tokenizer, text):
    if not text:
        return []
    return [len(text[a:b].encode()) for _, (a, b) in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def write_lines(name, lines):
    with open(os.path.join(HERE, name), "w", newline="\n") as f:
        f.write("".join(line + "\n" for line in lines))


def main():
    os.makedirs(HERE, exist_ok=True)
    texts, more = inputs(), random_texts(400)
    write_lines("inputs.txt", [shown for _, shown in texts])
    write_lines("random.txt", [escape(t) for t in more])
    for name, (patterns, ignore_merges) in FAMILIES.items():
        tokenizer, merges = build(patterns, ignore_merges)
        write_gguf(os.path.join(HERE, name + ".gguf"), name, tokenizer, merges)
        lines = []
        for text, _ in texts:
            tokenizer.encode_special_tokens = True
            plain = tokenizer.encode(text, add_special_tokens=False).ids
            tokenizer.encode_special_tokens = False
            parsed = tokenizer.encode(text, add_special_tokens=False).ids
            lines.append(numbers(plain) + ("" if plain == parsed else " | " + numbers(parsed)))
        write_lines(name + ".ids", lines)
        write_lines(name + ".words", [numbers(words(tokenizer, t)) for t in [t for t, _ in texts] + more])


main()
